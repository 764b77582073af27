"""What became of every node's reply in a round: as metrics, as log lines, and as one line of a file."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Literal

from flwr.app import Message

from holdfast.flower.grid import LOG, Outcome, error_of
from holdfast.types import ArtifactError

Status = Literal["used", "replaced", "missing"]
STATUSES: tuple[Status, ...] = ("used", "replaced", "missing")
"""What the numbers in the metric `holdfast/status` stand for."""


@dataclass(frozen=True)
class Verdict:
    """One node in one round.

    Attributes:
        node: its id.
        status: "used"; "replaced": what it sent is unusable, a neutral row stands in for it and it stays in n;
            "missing": nothing came, and it is not in n.
        reason: why it was not used, in one sentence.
        influence: its share in the result, where the rule can say; of a replaced node, the neutral row's in its place.
    """

    node: int
    status: Status
    reason: str = ""
    influence: float | None = None


@dataclass(frozen=True)
class RoundVerdict:
    """All nodes that were asked in one round.

    Attributes:
        round: from 1.
        stage: "train" or "evaluate".
        nodes: one verdict per node.
        skipped: why the model was left as it was, if it was.
        beyond: more rows were replaced than the malicious clients the rule was told to expect.
    """

    round: int
    stage: str
    nodes: tuple[Verdict, ...]
    skipped: str = ""
    beyond: bool = False

    def of(self, status: Status) -> list[Verdict]:
        """The nodes with one status."""
        return [verdict for verdict in self.nodes if verdict.status == status]

    def metrics(self) -> dict[str, Any]:
        """Numbers for Flower's MetricRecord; the three lists are aligned."""
        numbers: dict[str, Any] = {f"holdfast/{status}": len(self.of(status)) for status in STATUSES}
        numbers["holdfast/skipped"] = int(bool(self.skipped))
        numbers["holdfast/beyond-f"] = int(self.beyond)
        numbers["holdfast/nodes"] = [verdict.node for verdict in self.nodes]
        numbers["holdfast/status"] = [STATUSES.index(verdict.status) for verdict in self.nodes]
        if any(verdict.influence is not None for verdict in self.nodes):
            numbers["holdfast/influence"] = [float(verdict.influence or 0.0) for verdict in self.nodes]
        return numbers

    def log(self) -> None:
        """One line for the round, one for each node whose reply was not used."""
        LOG.info("round %d, %s: %d of %d replies used", self.round, self.stage, len(self.of("used")), len(self.nodes))
        for verdict in (*self.of("replaced"), *self.of("missing")):
            LOG.warning(
                "round %d, %s: node %d %s: %s", self.round, self.stage, verdict.node, verdict.status, verdict.reason
            )
        if self.beyond:
            LOG.warning("round %d: more replies were unusable than malicious clients are expected", self.round)
        if self.skipped:
            LOG.warning("round %d: the model stays as it was: %s", self.round, self.skipped)

    def line(self) -> bytes:
        """The round as one line of JSON; ids are strings, for they have 64 bits."""
        record: dict[str, Any] = {"round": self.round, "stage": self.stage}
        record |= {"skipped": self.skipped} if self.skipped else {}
        record |= {"beyond_f": True} if self.beyond else {}
        record["nodes"] = [
            {"node": str(v.node), "status": v.status}
            | ({} if v.influence is None else {"influence": round(v.influence, 6)})
            | ({"reason": v.reason} if v.reason else {})
            for v in self.nodes
        ]
        return json.dumps(record).encode() + b"\n"


def append_line(path: Path, line: bytes) -> None:
    """Add one line to a file in a single durable write; what a crash left of another line is removed first.

    Raises:
        ArtifactError: the file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a+b") as file:
            _drop_torn_line(file)
            file.write(line)
            file.flush()
            os.fsync(file.fileno())
    except OSError as problem:
        raise ArtifactError(f"cannot write {path}: {problem.strerror or problem}") from problem


def _drop_torn_line(file: IO[bytes]) -> None:
    if file.seek(0, os.SEEK_END) == 0:
        return
    file.seek(-1, os.SEEK_END)
    if file.read(1) != b"\n":
        file.seek(0)
        file.truncate(file.read().rfind(b"\n") + 1)


@dataclass(frozen=True)
class Sorted:
    """The replies of one round by the node they belong to.

    Attributes:
        answers: what came whole, from whom it was asked.
        faults: nodes whose reply is unusable, and why.
        silent: nodes from whom nothing came (or an error), and why.
    """

    answers: Mapping[int, Message] = field(default_factory=dict)
    faults: Mapping[int, str] = field(default_factory=dict)
    silent: Mapping[int, str] = field(default_factory=dict)


def sort_replies(asked: Sequence[Message], replies: Iterable[Message], outcomes: Sequence[Outcome] = ()) -> Sorted:
    """Give each reply to the node whose message it answers, by our own messages' ids; never raises.

    Replies to messages nobody sent are dropped. A second reply to one message, or one that names another sender, makes
    the node's reply unusable. `outcomes` (from `SafeGrid`) says why a reply is not there.
    """
    nodes = {message.metadata.message_id: message.metadata.dst_node_id for message in asked}
    answers: dict[int, Message] = {}
    silent: dict[int, str] = {outcome.node: outcome.reason for outcome in outcomes if outcome.kind != "malformed"}
    faults: dict[int, str] = {outcome.node: outcome.reason for outcome in outcomes if outcome.kind == "malformed"}
    for reply in replies:
        node = nodes.get(reply.metadata.reply_to_message_id)
        if node is None:
            LOG.warning("a reply came to a message that was not sent; it is dropped")
        elif node in answers:
            faults[node] = "2 replies came to one message"
        elif reply.has_error():
            silent[node] = error_of(reply)
        elif reply.metadata.src_node_id != node:
            faults[node] = "the reply names another sender"
        else:
            answers[node] = reply
    answers = {node: reply for node, reply in answers.items() if node not in faults}
    left = [node for node in nodes.values() if node not in answers and node not in faults]
    return Sorted(answers, faults, {node: silent.get(node) or "no reply came" for node in left})
