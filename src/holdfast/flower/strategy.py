"""A Flower strategy that one client can neither break nor own: FedAvg's arguments, any rule of holdfast."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flwr.app import ArrayRecord, ConfigRecord, Message, MessageType, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg, Result

from holdfast.aggregation import make
from holdfast.flower.grid import LOG, SafeGrid
from holdfast.flower.learner import Learner
from holdfast.flower.metrics import MetricsFunction, aggregated
from holdfast.flower.sampling import Roster
from holdfast.flower.trajectory import Steps
from holdfast.flower.verdicts import RoundVerdict, Sorted, Verdict, append_line, sort_replies
from holdfast.types import ConfigError


@dataclass(frozen=True)
class _Asked:
    """The messages of one round, and known nodes that were away in place of the rest."""

    messages: list[Message]
    away: list[int]

    @property
    def nodes(self) -> list[int]:
        return [message.metadata.dst_node_id for message in self.messages]


class RobustStrategy(FedAvg):
    """`FedAvg` with a robust rule, and no way for a reply to raise, to take the model over, or to shrink n.

    What becomes of a node that was asked:

    - *used*: its arrays are exactly those asked for, and the rule's screen let the row pass;
    - *replaced*: what it sent is unusable (wrong names, shapes, dtypes or sizes, not finite, absurd, undecodable, sent
      twice or in another's name). A neutral row, the coordinate-wise median of the usable ones, stands in: n stays;
    - *missing*: nothing came, or an error. Its row is left out, unless n would fall below what the rule needs: then
      it is replaced, so that no client can switch the defense off by keeping silent.

    With fewer usable replies than `quorum` the round is skipped: the model stays as it was. With more rows replaced
    than the malicious clients the rule was told to expect, the round goes on and says so (`holdfast/beyond-f`).

    Every round's metrics hold the verdict on each node (`holdfast/nodes`, `holdfast/status`: 0 used, 1 replaced,
    2 missing, and `holdfast/influence`); the log and `verdicts` say why. A rule's memory follows node ids.

    Differences from FedAvg: all clients weigh the same, for a count is only a claim (`use_counts` makes it a weight,
    capped); metrics are medians over the nodes and not means; integer arrays are merged by the median and keep their
    dtype; `start` needs a finite timeout and wraps its grid in a `SafeGrid`.

    Args:
        rule: a rule of `holdfast.aggregation`, or a name of `RULES` with the rule's parameters among `parameters`.
        fraction_train: and the arguments that follow: as FedAvg's. At least as many nodes are asked as the rule needs.
            What `train_metrics_aggr_fn` or `evaluate_metrics_aggr_fn` raises is logged and costs the metrics only.
        quorum: share of the asked nodes whose reply must be usable.
        use_counts: weigh by the reported `weighted_by_key`, up to the cap of the rule (`Mean(cap=2)`: at most twice
            an even share); other rules ignore it, except `GeometricMedian(weighted=True)`.
        verdicts: file to which every round adds one line of JSON.
        local_steps: tau, for Romoa: each reply holds the models after tau local steps (leading axis of every array).
        per_step: one message per local step instead; a round is then one step.
        wait: seconds to wait for enough nodes before the first round.
        seed: of the sampling of nodes; None: the system's randomness, which nobody can foresee.
        parameters: of the rule, if `rule` is a name.

    Raises:
        ConfigError: an unknown rule or parameter, a value out of range, counts as uncapped weights.

    Example:
        >>> RobustStrategy("trimmed-mean", f=2, fraction_train=0.5).rule
        TrimmedMean(f=2)
    """

    def __init__(
        self,
        rule: Any = "median",
        fraction_train: float = 1.0,
        fraction_evaluate: float = 1.0,
        min_train_nodes: int = 2,
        min_evaluate_nodes: int = 2,
        min_available_nodes: int = 2,
        weighted_by_key: str = "num-examples",
        arrayrecord_key: str = "arrays",
        configrecord_key: str = "config",
        train_metrics_aggr_fn: MetricsFunction | None = None,
        evaluate_metrics_aggr_fn: MetricsFunction | None = None,
        *,
        quorum: float = 0.5,
        use_counts: bool = False,
        verdicts: str | Path | None = None,
        local_steps: int = 1,
        per_step: bool = False,
        wait: float = 600.0,
        seed: int | None = None,
        **parameters: Any,
    ) -> None:
        super().__init__(
            fraction_train=fraction_train,
            fraction_evaluate=fraction_evaluate,
            min_train_nodes=min_train_nodes,
            min_evaluate_nodes=min_evaluate_nodes,
            min_available_nodes=min_available_nodes,
            weighted_by_key=weighted_by_key,
            arrayrecord_key=arrayrecord_key,
            configrecord_key=configrecord_key,
            train_metrics_aggr_fn=train_metrics_aggr_fn,
            evaluate_metrics_aggr_fn=evaluate_metrics_aggr_fn,
        )
        rule = _checked_rule(rule, parameters)
        if not 0 < quorum <= 1:
            raise ConfigError(f"quorum must be a share above 0 and at most 1, got {quorum!r}")
        if use_counts:
            _check_counts(rule)
        steps = Steps(local_steps, per_step)
        steps.check(rule)
        self.learner = Learner(rule, steps, quorum, weighted_by_key if use_counts else None)
        self.own_train_metrics = train_metrics_aggr_fn
        self.own_evaluate_metrics = evaluate_metrics_aggr_fn
        self.verdicts = None if verdicts is None else Path(verdicts)
        self.roster = Roster(random.SystemRandom() if seed is None else random.Random(seed), wait)
        self.history: list[RoundVerdict] = []
        """The verdicts of all rounds so far."""
        self._grid: SafeGrid | None = None
        self._asked: dict[str, _Asked] = {}

    @property
    def rule(self) -> Any:
        """The rule."""
        return self.learner.rule

    def summary(self) -> None:
        """Log the rule beside FedAvg's settings."""
        super().summary()
        LOG.info("\t└──> Rule: %r, needs %d clients", self.rule, self.rule.min_clients())

    def start(
        self,
        grid: Grid,
        initial_arrays: ArrayRecord,
        num_rounds: int = 3,
        timeout: float = 3600,
        train_config: ConfigRecord | None = None,
        evaluate_config: ConfigRecord | None = None,
        evaluate_fn: Callable[[int, ArrayRecord], MetricRecord | None] | None = None,
    ) -> Result:
        """Run the federation; `timeout` is how long each round waits for replies, in seconds.

        Raises:
            ArtifactError: the file for the verdicts cannot be written.
            ConfigError: no finite timeout.
            DataError: `initial_arrays` are no finite numbers.
            ThreatModelError: too few nodes connected within `wait`.
        """
        self._grid = grid if isinstance(grid, SafeGrid) else SafeGrid(grid)
        if self.verdicts is not None:
            append_line(self.verdicts, b"")  # find out now whether it can be written
        return super().start(
            self._grid, initial_arrays, num_rounds, timeout, train_config, evaluate_config, evaluate_fn
        )

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """The messages of one training round."""
        if self.fraction_train == 0.0:
            return []
        self.learner.read(arrays)
        least = max(self.min_train_nodes, self.rule.min_clients())
        told = ConfigRecord({**config, "server-round": server_round, **self.learner.steps.config(server_round)})
        record = RecordDict({self.arrayrecord_key: arrays, self.configrecord_key: told})
        if self.learner.steps.per_message and self.learner.steps.step(server_round) > 1:
            del record[self.arrayrecord_key]  # between syncing points a client goes on from its own model
        return self._ask("train", server_round, record, grid, self.fraction_train, least)

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """The messages of one evaluation round; none between Romoa's syncing points."""
        if self.fraction_evaluate == 0.0 or not self.learner.steps.due(server_round):
            return []
        told = ConfigRecord({**config, "server-round": server_round})
        record = RecordDict({self.arrayrecord_key: arrays, self.configrecord_key: told})
        return self._ask("evaluate", server_round, record, grid, self.fraction_evaluate, self.min_evaluate_nodes)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """The next global model and the round's metrics; the model as it was if the round is skipped."""
        asked = self._asked.pop("train", None)
        if asked is None:
            return None, None
        came = self._sorted(asked, replies)
        verdict = self.learner.advance(server_round, [*asked.nodes, *asked.away], came)
        used = [came.answers[v.node].content for v in verdict.of("used")]
        metrics = aggregated(used, self.weighted_by_key, self.own_train_metrics, "train_metrics_aggr_fn")
        return self.learner.arrays, self._reported(verdict, metrics)

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        """Every metric's median over the nodes that report it, weighted by nothing."""
        asked = self._asked.pop("evaluate", None)
        if asked is None:
            return None
        came = self._sorted(asked, replies)
        nodes = [
            Verdict(node, "replaced", came.faults[node])
            if node in came.faults
            else Verdict(node, "missing", came.silent[node])
            if node in came.silent
            else Verdict(node, "used")
            for node in asked.nodes
        ]
        contents = [reply.content for reply in came.answers.values()]
        metrics = aggregated(contents, self.weighted_by_key, self.own_evaluate_metrics, "evaluate_metrics_aggr_fn")
        return self._reported(RoundVerdict(server_round, "evaluate", tuple(nodes)), metrics)

    def _ask(
        self, stage: str, server_round: int, record: RecordDict, grid: Grid, fraction: float, least: int
    ) -> list[Message]:
        chosen, away = self.roster.choose(grid, fraction, least, self.min_available_nodes, self.learner.quorum)
        kind = MessageType.TRAIN if stage == "train" else MessageType.EVALUATE
        messages = [Message(record, node, kind, group_id=str(server_round)) for node in chosen]
        self._asked[stage] = _Asked(messages, away)
        return messages

    def _sorted(self, asked: _Asked, replies: Iterable[Message]) -> Sorted:
        outcomes = self._grid.outcomes if self._grid is not None else ()
        same = {outcome.node for outcome in outcomes} == set(asked.nodes)
        return sort_replies(asked.messages, replies, outcomes if same else ())

    def _reported(self, verdict: RoundVerdict, metrics: dict[str, Any]) -> MetricRecord:
        """Log the verdict, add it to the file, and put it beside the metrics."""
        verdict.log()
        self.history.append(verdict)
        if self.verdicts is not None:
            append_line(self.verdicts, verdict.line())
        return MetricRecord(metrics | verdict.metrics())


def _checked_rule(rule: Any, parameters: dict[str, Any]) -> Any:
    """The rule, made if it is a name."""
    if isinstance(rule, str):
        return make(rule, **parameters)
    if parameters:
        raise ConfigError(
            f"unknown argument {next(iter(parameters))!r}: parameters go with a rule's name, got {rule!r}"
        )
    if isinstance(rule, type) or not (hasattr(rule, "aggregate") and hasattr(rule, "min_clients")):
        raise ConfigError(f"rule must be a rule such as Median() or a name such as 'median', got {rule!r}")
    return rule


def _check_counts(rule: Any) -> None:
    """Reported counts must have a cap."""
    cap = getattr(rule, "cap", None)
    if hasattr(rule, "rule"):
        _check_counts(rule.rule)
    elif cap is not None and not isinstance(cap, bool) and math.isinf(cap):
        raise ConfigError(f"use_counts needs a finite cap: {rule!r} lets one client claim any weight")
