"""A federation in one process: Flower's own grid, messages and serialization, with the SuperLink's stores as dicts.

Everything a ServerApp calls is Flower's code (`HttpGrid`, `Message`, `ArrayRecord`, the taking apart into objects and
the putting together again); only the wire below it is replaced. Nodes are functions from a message to a reply.
"""

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from flwr.app import Error, Message, MessageType
from flwr.app.message import remove_content_from_message
from flwr.common.constant import SUPERLINK_NODE_ID
from flwr.common.serde import message_to_proto
from flwr.proto.message_pb2 import ConfirmMessageReceivedResponse, PullObjectResponse, PushObjectResponse
from flwr.proto.node_pb2 import NodeInfo
from flwr.proto.runtime_pb2 import GetNodesResponse, PullAppMessagesResponse, PushAppMessagesResponse
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, get_object_tree, iterate_object_tree
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity
from flwr.superlink.grid.http_grid import HttpGrid

CLIENT_APP_RAISED_EXCEPTION = 2


@dataclass
class Wire:
    """A message as it travels: metadata, the tree of its objects' ids, and their bytes (which may lack some)."""

    proto: Any
    tree: Any
    contents: dict[str, bytes]

    @classmethod
    def of(cls, message: Message) -> "Wire":
        """Take a message apart."""
        contents = {name: part.deflate() for name, part in get_all_nested_objects(message).items()}
        message.metadata.__dict__["_message_id"] = message.object_id
        return cls(message_to_proto(remove_content_from_message(message)), get_object_tree(message), contents)


Node = Callable[[Message], Message | Wire | list[Message | Wire] | None]


@dataclass
class Link:
    """What the SuperLink keeps; it stands where Flower's HTTP client does.

    Attributes:
        nodes: what each node does with a message; an exception becomes the error reply a SuperNode sends.
        ids: the last message id each node was sent.
        given: how often each id was asked for.
    """

    nodes: Mapping[int, Node]
    ids: dict[int, str] = field(default_factory=dict)
    given: dict[str, int] = field(default_factory=dict)
    sent: list[tuple[int, Message]] = field(default_factory=list)
    closed: bool = False

    def __post_init__(self) -> None:
        self._objects: dict[str, bytes] = {}
        self._waiting: dict[str, tuple[int, Any]] = {}
        self._replies: dict[str, list[Wire]] = {}
        self._lock = threading.RLock()

    def deposit(self, wire: Wire) -> None:
        """Accept a reply: as the SuperLink does, under the message it says it answers."""
        with self._lock:
            self._objects.update(wire.contents)
            self._replies.setdefault(wire.proto.metadata.reply_to_message_id, []).append(wire)

    def GetNodes(self, _: Any) -> Any:
        return GetNodesResponse(nodes=[NodeInfo(node_id=i) for i in self.nodes])

    def PushMessages(self, request: Any) -> Any:
        with self._lock:
            wanted = set()
            for proto, tree in zip(request.messages_list, request.message_object_trees, strict=True):
                node, message_id = proto.metadata.dst_node_id, proto.metadata.message_id
                self._waiting[message_id] = (node, tree)
                self.ids[node] = message_id
                wanted |= {part.object_id for part in iterate_object_tree(tree)} - set(self._objects)
            ids = [proto.metadata.message_id for proto in request.messages_list]
            return PushAppMessagesResponse(message_ids=ids, objects_to_push=sorted(wanted), session_id="s")

    def PushObject(self, request: Any) -> Any:
        with self._lock:
            self._objects[request.object_id] = request.object_content
        return PushObjectResponse(stored=True)

    def PullMessages(self, request: Any) -> Any:
        with self._lock:
            for message_id in request.message_ids:
                self.given[message_id] = self.given.get(message_id, 0) + 1
                if message_id in self._waiting:
                    self._work(message_id)
            found = [wire for i in request.message_ids for wire in self._replies.get(i, [])]
        return PullAppMessagesResponse(
            messages_list=[w.proto for w in found], message_object_trees=[w.tree for w in found]
        )

    def PullObject(self, request: Any) -> Any:
        content = self._objects.get(request.object_id)
        return PullObjectResponse(
            object_found=not self.closed, object_available=content is not None, object_content=content or b""
        )

    def ConfirmMessageReceived(self, _: Any) -> Any:
        return ConfirmMessageReceivedResponse()

    def _work(self, message_id: str) -> None:
        """Let the node handle its message."""
        node, tree = self._waiting.pop(message_id)
        contents = {part.object_id: self._objects[part.object_id] for part in iterate_object_tree(tree)}
        message: Any = inflate_object_from_contents(message_id, contents)
        message.metadata.__dict__["_message_id"] = message_id
        self.sent.append((node, message))
        try:
            made = self.nodes[node](message)
        except Exception as problem:
            made = Message(Error(CLIENT_APP_RAISED_EXCEPTION, f"{type(problem)}: {problem}"), reply_to=message)
        for part in made if isinstance(made, list) else [made]:
            if part is not None:
                self.deposit(part if isinstance(part, Wire) else Wire.of(part))


def grid_of(link: Link) -> HttpGrid:
    """Flower's grid on this link."""
    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, SUPERLINK_NODE_ID, 1
    grid = HttpGrid(token="in-process")
    grid._client = link  # type: ignore[assignment]
    grid.set_run(Run.create_empty(run_id=1))
    return grid


def message_for(node: int, content: Any) -> Message:
    """A training message."""
    return Message(content, node, MessageType.TRAIN)


__all__ = ["Link", "Wire", "grid_of", "message_for"]
