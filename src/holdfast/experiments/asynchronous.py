"""Asynchronous updating (Algorithm 1 of the Romoa paper): local steps that the server watches, and syncing points."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from holdfast.aggregation.romoa import Syncing
from holdfast.experiments.simulation import Floats, RoundLoop
from holdfast.types import Aggregate, LookaheadRule


class AsynchronousLoop(RoundLoop):
    r"""A round is tau local steps and a syncing point.

    At step t every participant i of the round takes one SGD step from its own model, $\theta_i \leftarrow \theta_i -
    \eta g_i(\theta_i)$, and uploads it. A rule with lookahead sees the uploads of every step; at the last one the rule
    aggregates them to the synced model $\bar\theta$, and $\theta_i \leftarrow \theta_i - \gamma (\theta_i -
    \bar\theta)$. With tau = 1 and gamma = 1 this is FedAvg with one local step.

    Malicious participants craft their upload anew at every step, from the honest uploads of that step. Their own
    models walk on as trained (on poisoned rows, if they have some), as if they had not attacked: a boost does not add
    up over the steps. With client sampling, who is not drawn neither trains nor moves.

    Memory beside FedAvg's: with gamma below 1, one model per client (`local`), kept in checkpoints.
    """

    @property
    def syncing(self) -> Syncing:
        """When participants sync, and how far they move."""
        return self.config.syncing or Syncing(tau=1)

    def round(self, params: Floats, state: Any, number: int) -> tuple[Floats, Any, Aggregate, NDArray[np.bool_]]:
        """Tau steps and a syncing point: (the synced model, the rule's memory, its verdict, who was malicious)."""
        clients = self.federation.sample(number)
        malicious = np.isin(clients, self.federation.malicious)
        tau = self.syncing.tau
        models = np.repeat(params[None], len(clients), axis=0) if self.local is None else self.local[clients]
        for step in range(number * tau, (number + 1) * tau):
            models, updates = self._uploads(params, models, state, step, clients, malicious)
            if not self.syncing.due(step + 1):
                began = time.perf_counter()
                state = self._watched(params, updates, clients, state)
                self._took("rule", began)
        began = time.perf_counter()
        result = self._aggregate(params, updates, clients, state)
        self._took("rule", began)
        synced = params + np.asarray(result.value, dtype=np.float32)
        self._move(params, models, synced, clients)
        return synced, result.state, result, malicious

    def _uploads(
        self,
        params: Floats,
        models: Floats,
        state: Any,
        step: int,
        clients: NDArray[np.int64],
        malicious: NDArray[np.bool_],
    ) -> tuple[Floats, Floats]:
        """One local step: every participant's own model, and what it uploads, as updates of the synced model."""
        number, last = step // self.syncing.tau, self.syncing.due(step + 1)
        adversary = self.threat.adversary
        attacks = malicious.any() and adversary.active(number) and (last or not self.threat.sync_only)
        began = time.perf_counter()
        models = models.copy()
        trained = ~malicious if attacks else np.ones_like(malicious)
        models[trained] = self.honest.walk(models[trained], clients[trained], step)
        if attacks and self.malicious is not None:
            effort = adversary.behavior.steps(step + 1) - adversary.behavior.steps(step)
            models[malicious] = self.malicious.walk(models[malicious], clients[malicious], step, effort)
        with np.errstate(invalid="ignore"):  # a destroyed model may hold infinities
            updates = models - params
        self._took("training", began)
        if attacks:
            began = time.perf_counter()
            honest, own = updates[~malicious], updates[malicious]
            updates[malicious] = self._crafted(params, state, number, clients, malicious, honest, own, step)
            self._took("attack", began)
        return models, updates

    def _watched(self, params: Floats, updates: Floats, clients: NDArray[np.int64], state: Any) -> Any:
        """The rule's memory after a step without syncing: only rules with lookahead look."""
        rule = self.federation.rule
        if not isinstance(rule, LookaheadRule):
            return state
        rows, base = self._seen(params, updates)
        return rule.lookahead(
            rows, state=state, layout=self.layout, reference=base, clients=[int(client) for client in clients]
        )

    def _aggregate(self, params: Floats, updates: Any, clients: NDArray[np.int64], state: Any) -> Aggregate:
        """The rule's verdict; a rule with lookahead gets whole models, since it selects by their parameters' size."""
        rule = self.federation.rule
        if not isinstance(rule, LookaheadRule):
            return super()._aggregate(params, updates, clients, state)
        rows, base = self._seen(params, updates)
        result = rule.aggregate(
            rows, state=state, layout=self.layout, reference=base, clients=[int(client) for client in clients]
        )
        return result if base is None else replace(result, value=result.value - base)

    def _seen(self, params: Floats, updates: Any) -> tuple[Any, Floats | None]:
        """The uploads as models, and the last synced one; plain updates once that is no longer finite."""
        if not np.isfinite(params).all():
            return updates, None
        with np.errstate(over="ignore", invalid="ignore"):
            return params + updates, params

    def _move(self, params: Floats, models: Floats, synced: Floats, clients: NDArray[np.int64]) -> None:
        """Everybody who took part moves towards the synced model."""
        if self.syncing.moving_rate == 1:
            return
        if self.local is None:
            self.local = np.repeat(params[None], self.federation.n, axis=0)
        with np.errstate(over="ignore", invalid="ignore"):
            self.local[clients] = self.syncing.moved(models, synced)
