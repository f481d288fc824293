"""A grid that mistreats messages: each fault by itself, between a server and members that only echo."""

from collections.abc import Iterable
from pathlib import Path

from flwr.app import ConfigRecord, Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp

from wash_fl.faults import points
from wash_fl.faults.fault import Kind
from wash_fl.faults.plan import FaultPlan
from wash_fl.flower import records
from wash_fl.flower.faulty_grid import FaultyGrid, with_faults
from wash_fl.flower.in_process import InProcessGrid

NODES = {0: 1000, 1: 1007}


class Echoes:
    """Two members that write down what reaches them, behind a grid with faults, and their server."""

    def __init__(self, plan: str) -> None:
        self.seen: list[tuple[int, str, int, bytes]] = []
        app = ClientApp()
        app.train()(self.handle)
        app.query("wash_join")(self.handle)
        app.query("wash_collect")(self.handle)
        self.plan = FaultPlan.parse(plan)
        self.inner = InProcessGrid(app, 2)
        self.grid = FaultyGrid(self.inner, self.plan)
        self.sent: dict[str, tuple[int, int]] = {}
        self.push(records.JOIN, 0)
        self.pull()
        self.seen.clear()

    def handle(self, message: Message, context: Context) -> Message:
        member = int(context.node_config["partition-id"])
        given = message.content.config_records[records.RECORD]
        kind = message.metadata.message_type
        self.seen.append((member, kind, int(given["round"]), bytes(given["delivery"])))  # type: ignore[arg-type]
        fields = {"member": member, "round": given["round"], "offer": b"offer" * 20}
        return Message(RecordDict({records.RECORD: ConfigRecord(fields)}), reply_to=message)

    def push(
        self, kind: str, number: int, members: Iterable[int] = (0, 1), delivery: bytes = b"d" * 50
    ) -> None:
        messages = [
            Message(
                RecordDict({records.RECORD: ConfigRecord({"round": number, "delivery": delivery})}),
                NODES[member],
                kind,
                ttl=10.0,
            )
            for member in members
        ]
        ids = list(self.grid.push_messages(messages))
        assert [message.metadata.message_id for message in messages] == ids
        assert not set(ids) & self.sent.keys()
        self.sent |= dict(zip(ids, ((member, number) for member in members), strict=True))

    def pull(self) -> list[tuple[int, int]]:
        """Which replies came, as (member, round) of the request that each answers, in order."""
        self.replies = list(self.grid.pull_messages(list(self.sent)))
        return [self.sent[reply.metadata.reply_to_message_id] for reply in self.replies]

    def round(self, number: int, members: Iterable[int] = (0, 1)) -> list[tuple[int, int]]:
        self.push(records.TRAIN, number, members)
        return self.pull()

    def met(self) -> list[tuple[int, int]]:
        """Which requests reached members, as (member, round), in order."""
        return [(member, number) for member, _, number, _ in self.seen]


def test_without_a_fault_everything_passes_once_and_in_order() -> None:
    echoes = Echoes("drop reply member=1 exchange=9; kill member=1 exchange=1 at=saved")
    assert echoes.round(1) == [(0, 1), (1, 1)]
    assert echoes.pull() == []
    assert echoes.round(2) == [(0, 2), (1, 2)]
    assert echoes.met() == [(0, 1), (1, 1), (0, 2), (1, 2)]
    assert echoes.plan.injected == {}
    assert not echoes.grid._out


def test_a_dropped_request_reaches_nobody_and_a_dropped_reply_is_of_work_that_was_done() -> None:
    echoes = Echoes("drop request member=1 exchange=1; drop reply member=0 exchange=2")
    assert echoes.round(1) == [(0, 1)]
    assert echoes.round(2) == [(1, 2)]
    assert echoes.round(3) == [(0, 3), (1, 3)]
    assert echoes.met() == [(0, 1), (0, 2), (1, 2), (0, 3), (1, 3)]
    assert echoes.plan.injected == {"drop": 2}
    assert not echoes.grid._out and not echoes.grid._requests and not echoes.grid._replies


def test_a_duplicated_request_is_met_twice_and_a_duplicated_reply_comes_twice() -> None:
    echoes = Echoes("duplicate request member=0 exchange=1; duplicate reply member=1 exchange=2")
    assert echoes.round(1) == [(0, 1), (0, 1), (1, 1)]
    assert echoes.met() == [(0, 1), (0, 1), (1, 1)]
    assert echoes.round(2) == [(0, 2), (1, 2), (1, 2)]
    assert len(echoes.met()) == 5


def test_a_delayed_reply_comes_with_a_later_round_and_only_if_somebody_still_waits_for_it() -> None:
    echoes = Echoes("delay reply member=1 exchange=1 by=2; delay reply member=0 exchange=3")
    assert echoes.round(1) == [(0, 1)]
    assert echoes.round(2) == [(0, 2), (1, 2)]
    assert echoes.pull() == []
    assert echoes.round(3) == [(1, 3), (1, 1)]
    echoes.sent = {name: what for name, what in echoes.sent.items() if what != (0, 3)}
    assert echoes.round(4) == [(0, 4), (1, 4)]
    assert not echoes.grid._replies


def test_a_delayed_request_reaches_its_member_before_that_of_the_later_round() -> None:
    echoes = Echoes("delay request member=1 exchange=1 by=2")
    assert echoes.round(1) == [(0, 1)]
    assert echoes.round(2) == [(0, 2), (1, 2)]
    assert sorted(echoes.round(3)) == [(0, 3), (1, 1), (1, 3)]
    assert echoes.met() == [(0, 1), (0, 2), (1, 2), (1, 1), (0, 3), (1, 3)]


def test_what_is_held_at_the_end_goes_before_the_collection() -> None:
    echoes = Echoes("delay request member=1 exchange=2 by=9")
    echoes.round(2)
    echoes.push(records.COLLECT, 0)
    assert [number for member, number in echoes.met() if member == 1] == [2, 0]
    # A donor is collected from in the middle of a run: delays after that are delays still.
    later = Echoes("delay reply member=1 exchange=3 by=2")
    later.push(records.COLLECT, 0, members=[0])
    later.pull()
    assert later.round(3) == [(0, 3)]
    assert later.round(4) == [(0, 4), (1, 4)]
    assert later.round(5) == [(0, 5), (1, 5), (1, 3)]


def test_a_reordered_request_comes_after_that_of_the_next_round() -> None:
    echoes = Echoes("reorder request member=0 exchange=1")
    assert echoes.round(1) == [(1, 1)]
    assert echoes.round(2, members=[1]) == [(1, 2)]
    assert sorted(echoes.round(3)) == [(0, 1), (0, 3), (1, 3)]
    assert [number for member, number in echoes.met() if member == 0] == [3, 1]


def test_a_reordered_reply_is_overtaken_by_the_next_and_waits_no_longer_if_there_is_none() -> None:
    echoes = Echoes("reorder reply member=0 exchange=1; reorder reply member=1 exchange=2")
    assert echoes.round(1) == [(1, 1), (0, 1)]
    assert echoes.round(2, members=[1]) == [(1, 2)]
    assert echoes.pull() == []


def test_one_bit_of_the_packet_is_corrupted_and_a_message_without_a_packet_passes() -> None:
    echoes = Echoes("corrupt request member=1; corrupt reply member=0 exchange=2")
    echoes.push(records.TRAIN, 1, delivery=b"")
    assert len(echoes.pull()) == 2
    assert echoes.plan.injected == {}
    echoes.round(2)
    (delivery,) = [given for member, _, number, given in echoes.seen if (member, number) == (1, 2)]
    offers = [reply.content.config_records[records.RECORD]["offer"] for reply in echoes.replies]
    for corrupted, whole in [(delivery, b"d" * 50), (offers[0], b"offer" * 20)]:
        assert isinstance(corrupted, bytes) and len(corrupted) == len(whole)
        changed = [ours ^ theirs for ours, theirs in zip(corrupted, whole, strict=True)]
        assert sum(each.bit_count() for each in changed) == 1
    assert offers[1] == b"offer" * 20
    again = Echoes("corrupt request member=1")
    again.round(2)
    assert again.seen[1][3] == delivery


def test_the_message_that_the_server_holds_stays_as_it_is() -> None:
    echoes = Echoes("corrupt request member=0 exchange=1")
    content = RecordDict({records.RECORD: ConfigRecord({"round": 1, "delivery": b"whole"})})
    list(echoes.grid.push_messages([Message(content, NODES[0], records.TRAIN)]))
    assert content.config_records[records.RECORD]["delivery"] == b"whole"
    assert echoes.seen[0][3] != b"whole"


def test_other_requests_are_hit_by_their_name() -> None:
    echoes = Echoes("drop reply member=1 of=collect; drop request member=0 of=collect times=2")
    for expected in ([], [(1, 0)], [(0, 0), (1, 0)]):
        echoes.push(records.COLLECT, 0)
        assert echoes.pull() == expected
    assert echoes.round(1) == [(0, 1), (1, 1)]


def test_an_error_that_flower_reports_is_no_message_of_the_member() -> None:
    echoes = Echoes("drop reply member=1 exchange=1")
    echoes.inner.fault = lambda member, request, deliver: [Message(Error(5, "gone"), reply_to=request)]
    assert echoes.round(1) == [(0, 1), (1, 1)]


def test_a_member_is_not_known_before_it_has_said_who_it_is() -> None:
    echoes = Echoes("drop request member=1 of=join times=always")
    assert echoes.plan.injected == {}
    echoes.push(records.JOIN, 0)
    assert echoes.pull() == [(0, 0)]


def test_sending_and_receiving_waits_as_long_as_it_is_told() -> None:
    echoes = Echoes("drop reply member=1 exchange=1")
    content = RecordDict({records.RECORD: ConfigRecord({"round": 1, "delivery": b""})})
    messages = [Message(content, node, records.TRAIN) for node in NODES.values()]
    replies = list(echoes.grid.send_and_receive(messages, timeout=0.0))
    assert [reply.metadata.src_node_id for reply in replies] == [NODES[0]]
    assert list(echoes.grid.get_node_ids()) == list(NODES.values())
    assert len(list(echoes.grid.get_nodes())) == 2


def test_a_grid_is_mistreated_only_if_the_environment_asks_for_it(tmp_path: Path) -> None:
    inner = Echoes("").inner
    assert with_faults(inner, {}) is inner
    asked = {points.PLAN: "drop reply member=1 exchange=1", points.FOLDER: str(tmp_path)}
    grid = with_faults(inner, asked)
    assert isinstance(grid, FaultyGrid) and grid.inner is inner
    assert str(grid.plan) == "drop reply member=1 exchange=1"


def test_a_member_killed_at_a_point_is_told_as_flower_tells_it() -> None:
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        points.reach("trained", member=int(context.node_config["partition-id"]), exchange=1)
        return Message(RecordDict(), reply_to=message)

    grid = InProcessGrid(app, 2)
    with points.installed(FaultPlan.parse("kill member=1 at=trained")):
        replies = list(
            grid.send_and_receive([Message(RecordDict(), node, records.TRAIN) for node in NODES.values()])
        )
    assert [reply.has_error() and reply.error.code for reply in replies] == [False, 8]


def test_what_the_grid_remembers_does_not_grow_with_the_rounds() -> None:
    kinds = [Kind.DROP, Kind.DUPLICATE, Kind.CORRUPT]
    echoes = Echoes(str(FaultPlan.random(1, members=2, exchanges=200, rate=0.7, kinds=kinds)))
    for number in range(1, 201):
        echoes.round(number)
        echoes.sent.clear()
    assert sum(echoes.plan.injected.values()) > 200
    assert not echoes.grid._out and not echoes.grid._requests and not echoes.grid._replies
    assert not echoes.inner._replies
