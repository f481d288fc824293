"""Flower without its processes: a Grid that runs a real ClientApp right here, for tests and measurements.

What it needs of Flower beyond the public interface is in this file alone: the identity that Flower gives
its own processes, the id that a SuperLink gives a message, and the id of the message that a reply answers.
"""

import itertools
import traceback
from collections.abc import Callable, Iterable, Mapping

from flwr.app import Context, Error, Message, RecordDict
from flwr.app.user_config import UserConfig
from flwr.clientapp import ClientApp
from flwr.proto.node_pb2 import NodeInfo
from flwr.serverapp import Grid
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

from wash_fl.faults.points import Killed

CLIENT_APP_RAISED = 2
CLIENT_APP_KILLED = 8

Deliver = Callable[[Message], list[Message]]
Fault = Callable[[int, Message, Deliver], list[Message]]
"""Stands between a node and its messages: gets the member, a request, and what delivers it."""


def identify_process() -> None:
    """Give this process the identity without which Flower makes no message."""
    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, 1, 1


def give_id(message: Message, message_id: str) -> None:
    """Give a message its id, as a SuperLink does when it is pushed."""
    message.metadata.__dict__["_message_id"] = message_id


def give_reply_to(reply: Message, message_id: str) -> None:
    """Make a reply one to another message."""
    reply.metadata.__dict__["_reply_to_message_id"] = message_id


def no_fault(member: int, request: Message, deliver: Deliver) -> list[Message]:
    """Deliver every request once and return the reply."""
    return deliver(request)


class InProcessGrid(Grid):
    """Runs the clients of a fleet one after the other in this process.

    Parameters
    ----------
    client_app : ClientApp
        What every client runs.
    members : int
        How many clients there are; their ``partition-id`` is 0 to members - 1.
    run_config : mapping
        What the clients find in ``context.run_config``.
    fault : callable
        ``fault(member, request, deliver)`` returns the replies that come back: ``deliver(request)`` for the
        ordinary case, an empty list for a message that is lost, a changed or repeated one for any other
        fault.

    Attributes
    ----------
    offline : set of int
        Members whose nodes are not connected.
    """

    def __init__(
        self,
        client_app: ClientApp,
        members: int,
        run_config: Mapping[str, bool | float | int | str] | None = None,
        fault: Fault = no_fault,
    ) -> None:
        identify_process()
        self.fault = fault
        self._app = client_app
        self._run = Run.create_empty(run_id=1)
        self._ids = itertools.count(1)
        self._replies: dict[str, list[Message]] = {}
        self.offline: set[int] = set()
        # Node ids that are no member's index, as in a real fleet.
        self._members = {1000 + 7 * index: index for index in range(members)}
        config: UserConfig = dict(run_config or {})
        self._contexts = {
            node: Context(
                run_id=1,
                node_id=node,
                node_config={"partition-id": index, "num-partitions": members},
                state=RecordDict(),
                run_config=config,
            )
            for node, index in self._members.items()
        }

    def set_run(self, run: Run) -> None:
        """Take note of the run."""
        self._run = run

    @property
    def run(self) -> Run:
        """The run."""
        return self._run

    def get_node_ids(self) -> Iterable[int]:
        """Return the ids of all nodes that are connected."""
        return [node for node, member in self._members.items() if member not in self.offline]

    def get_nodes(self) -> Iterable[NodeInfo]:
        """Return all nodes."""
        return [NodeInfo(node_id=node) for node in self._members]

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        """Make a message; Flower's own way is ``Message(...)``."""
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Deliver messages at once, through the fault, and keep the replies."""
        ids: list[str] = []
        for message in messages:
            message_id = f"message-{next(self._ids)}"
            give_id(message, message_id)
            member = self._members[message.metadata.dst_node_id]
            self._replies[message_id] = self.fault(member, message, self._deliver)
            ids.append(message_id)
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Return the replies that came, each once."""
        return [reply for message_id in message_ids for reply in self._replies.pop(message_id, [])]

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """Deliver messages and return their replies; what is lost is lost at once."""
        return self.pull_messages(list(self.push_messages(messages)))

    def _deliver(self, request: Message) -> list[Message]:
        try:
            return [self._app(request, self._contexts[request.metadata.dst_node_id])]
        except Killed as killed:
            return [Message(Error(CLIENT_APP_KILLED, str(killed)), reply_to=request)]
        except Exception:
            # As Flower's own runtime answers for a ClientApp that raises.
            return [Message(Error(CLIENT_APP_RAISED, traceback.format_exc()), reply_to=request)]
