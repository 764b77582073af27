"""On SafeGrid no reply costs anybody but its sender, and identity is ours."""

import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from holdfast.types import ConfigError

pytest.importorskip("flwr", reason="Flower is not installed: pip install 'holdfast[flower]'")

import httpx
from flwr.app import Array, ArrayRecord, Message, MetricRecord, RecordDict

from holdfast.flower import SafeGrid
from holdfast.flower.grid import NONCE_RECORD, Outcome
from tests.flower_link import Link, Wire, grid_of, message_for

NODES = (11, 12, 13, 14)
BAD = 13


def honest(message: Message) -> Message:
    value = float(message.metadata.dst_node_id)
    arrays = ArrayRecord({"w": Array(np.full(4, value))})
    return Message(RecordDict({"arrays": arrays, "metrics": MetricRecord({"num-examples": 1})}), reply_to=message)


def malformed(message: Message) -> Wire:
    """The bytes of its ArrayRecord are garbage."""
    wire = Wire.of(honest(message))
    victim = next(name for name, content in wire.contents.items() if content.startswith(b"ArrayRecord"))
    wire.contents[victim] = b"\xff\x00 not what was announced"
    return wire


def ghost(message: Message) -> Wire:
    """Announced, never uploaded."""
    wire = Wire.of(honest(message))
    wire.contents.clear()
    return wire


def names_another_sender(message: Message) -> Message:
    reply = honest(message)
    reply.metadata.__dict__["_src_node_id"] = NODES[0]
    return reply


def twice(message: Message) -> list[Message | Wire]:
    other = honest(message)
    other.content["metrics"] = MetricRecord({"num-examples": 9})
    return [honest(message), other]


def raises(message: Message) -> Message:
    raise OSError("disk\x1b[31m full\n" + "x" * 5000)


def exchange(bad: Any, *, timeout: float = 1.0, **options: Any) -> tuple[dict[int, Outcome], list[Message], Link]:
    link = Link(dict.fromkeys(NODES, honest) | {BAD: bad})
    grid = SafeGrid(grid_of(link), poll=0.01, **options)
    content = RecordDict({"arrays": ArrayRecord({"w": Array(np.zeros(4))})})
    replies = list(grid.send_and_receive([message_for(i, content) for i in NODES], timeout=timeout))
    link.closed = True
    return {outcome.node: outcome for outcome in grid.outcomes}, replies, link


@pytest.mark.parametrize(
    ("bad", "kind", "said"),
    [
        (malformed, "malformed", "cannot be decoded"),
        (ghost, "silent", "no reply within 1 s"),
        (names_another_sender, "malformed", "another sender"),
        (twice, "malformed", "2 replies"),
        (raises, "error", "error 2"),
        (lambda _: None, "silent", "no reply within 1 s"),
        (honest, "answered", ""),
    ],
)
def test_a_bad_reply_costs_only_its_sender(bad: Any, kind: str, said: str) -> None:
    outcomes, replies, _ = exchange(bad)
    assert tuple(outcomes) == NODES
    assert (outcomes[BAD].kind, said in outcomes[BAD].reason) == (kind, True), outcomes[BAD]
    for node in set(NODES) - {BAD}:
        assert outcomes[node].kind == "answered"
    assert len(replies) == len(NODES) - (kind != "answered")
    for reply in replies:
        assert (reply.content["arrays"]["w"].numpy() == reply.metadata.src_node_id).all()


def test_reasons_are_one_short_printable_line() -> None:
    outcomes, _, _ = exchange(raises)
    assert outcomes[BAD].reason.isprintable()
    assert len(outcomes[BAD].reason) < 250


def test_a_forged_reply_needs_an_id_and_ids_are_secret() -> None:
    """With the victim's id in hand a forger is found out; an id is a hash over our secret."""
    links: list[Link] = []

    def forger(message: Message) -> Message:
        forged = honest(message)
        forged.metadata.__dict__["_reply_to_message_id"] = links[0].ids[NODES[0]]
        links[0].deposit(Wire.of(forged))
        return honest(message)

    link = Link(dict.fromkeys(NODES, honest) | {BAD: forger})
    links.append(link)
    grid = SafeGrid(grid_of(link), poll=0.01)
    list(grid.send_and_receive([message_for(i, RecordDict({})) for i in NODES], timeout=1.0))
    assert [o.kind for o in grid.outcomes if o.node in NODES[1:]] == ["answered"] * 3

    nonces = [message.content[NONCE_RECORD]["nonce"] for _, message in link.sent]
    assert len(set(nonces)) == len(NODES)
    assert min(len(str(n)) for n in nonces) == 32
    node, message = link.sent[0]
    assert message.object_id == link.ids[node]
    message.content[NONCE_RECORD]["nonce"] = "00" * 16
    assert message.object_id != link.ids[node]


def test_ids_are_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    outcomes, _, link = exchange(malformed)
    text = caplog.text + " ".join(o.reason for o in outcomes.values())
    assert not any(message_id in text for message_id in link.ids.values())


def test_threads_are_few_and_polling_slows_down() -> None:
    start = threading.active_count()
    seen: list[int] = []

    def slow(message: Message) -> Message:
        seen.append(threading.active_count() - start)
        return honest(message)

    link = Link(dict.fromkeys(range(100, 150), slow) | {1: lambda _: None})
    grid = SafeGrid(grid_of(link), poll=0.001, threads=5)
    replies = grid.send_and_receive([message_for(i, RecordDict({})) for i in link.nodes], timeout=1.0)
    assert len(list(replies)) == 50
    assert max(seen) <= 5 * 5  # Flower pulls the objects of each reply with a few threads of its own
    assert link.given[link.ids[1]] < 120


def test_a_refused_message_is_reported() -> None:
    link = Link(dict.fromkeys(NODES, honest))
    grid = SafeGrid(grid_of(link), poll=0.01)
    push = link.PushMessages

    def refuse(request: Any) -> Any:
        answer = push(request)
        if request.messages_list[0].metadata.dst_node_id == BAD:
            answer.message_ids[:] = []
        return answer

    link.PushMessages = refuse  # type: ignore[method-assign]
    list(grid.send_and_receive([message_for(i, RecordDict({})) for i in NODES], timeout=1.0))
    assert [o.kind for o in grid.outcomes] == ["answered", "answered", "error", "answered"]


def test_a_superlink_that_is_away_for_a_while_costs_nobody() -> None:
    link = Link(dict.fromkeys(NODES, honest))
    pull, refused = link.PullMessages, dict.fromkeys(range(6))

    def flaky(request: Any) -> Any:
        if refused:
            refused.popitem()
            raise httpx.ConnectError("connection refused")
        return pull(request)

    link.PullMessages = flaky  # type: ignore[method-assign]
    grid = SafeGrid(grid_of(link), poll=0.01)
    list(grid.send_and_receive([message_for(i, RecordDict({})) for i in NODES], timeout=5.0))
    assert [o.kind for o in grid.outcomes] == ["answered"] * len(NODES)


def test_a_hanging_pull_does_not_outlast_the_timeout() -> None:
    start = time.monotonic()
    exchange(ghost, timeout=0.5)
    assert time.monotonic() - start < 3.0


@pytest.mark.parametrize("timeout", [None, 0, -1.0, float("inf"), float("nan")])
def test_a_timeout_must_be_given(timeout: Any) -> None:
    with pytest.raises(ConfigError, match="timeout must be a number of seconds above 0"):
        SafeGrid(grid_of(Link({}))).send_and_receive([], timeout=timeout)


AMPLIFIED = """
import json
from flwr.app import ArrayRecord, Array
from holdfast.flower import SafeGrid
from tests.test_flower_grid import *

def amplifies(message):
    # One chunk of 4 MB, named 2000 times: 8 GB once it is put together.
    array = Array(np.zeros(1 << 19))
    reply = Message(RecordDict({"arrays": ArrayRecord({"w": array})}), reply_to=message)
    wire = Wire.of(reply)
    name = next(name for name, content in wire.contents.items() if b"arraychunk_ids" in content)
    head, _, body = wire.contents[name].partition(b"\\x00")
    told = json.loads(body) | {"arraychunk_ids": [0] * 2000}
    wire.contents[name] = head + b"\\x00" + json.dumps(told).encode()
    return wire

link = Link(dict.fromkeys(NODES, honest) | {BAD: amplifies})
grid = SafeGrid(grid_of(link), poll=0.01, memory=2 << 30)
list(grid.send_and_receive([message_for(i, RecordDict({})) for i in NODES], timeout=60.0))
print([(o.kind, "MemoryError" in o.reason) for o in grid.outcomes])
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="only Linux tells how much memory a process has")
def test_a_small_upload_that_unpacks_to_8_gb_costs_its_sender() -> None:
    root = Path(__file__).resolve().parents[1]
    env = {**os.environ, "PYTHONPATH": f"{root / 'src'}{os.pathsep}{root}", "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", AMPLIFIED], capture_output=True, text=True, env=env, check=False)
    good, bad = ("answered", False), ("malformed", True)
    assert done.stdout == f"{[good, good, bad, good]}\n", done.stderr


def test_options_are_checked() -> None:
    with pytest.raises(ConfigError, match="poll"):
        SafeGrid(grid_of(Link({})), poll=0)
    with pytest.raises(ConfigError, match="threads"):
        SafeGrid(grid_of(Link({})), threads=0)
    with pytest.raises(ConfigError, match="memory must be a number of bytes above 0"):
        SafeGrid(grid_of(Link({})), memory=0)
