"""The server's decisions, told what comes and asked what it does: no Flower, no clock, no network."""

import numpy as np
import pytest

from wash_fl.config import ExchangeConfig
from wash_fl.core.layout import layout_of
from wash_fl.errors import RunError
from wash_fl.protocol.commands import AllCollected, Ask, RoundBegan, RoundEnded, Settled, Tell, UseModel
from wash_fl.protocol.coordinator import Coordinator
from wash_fl.protocol.events import Hello, Nodes, Offered, Replied
from wash_fl.protocol.journal import Journal
from wash_fl.protocol.journal_rows import Standing
from wash_fl.protocol.messages import EXCHANGES, Answer, Failure, Kind, Lost, ServerStatus, Status
from wash_fl.protocol.options import ServerOptions
from wash_fl.protocol.over_streams import VERSION
from wash_fl.protocol.terms import Terms

INITIAL, DONATED = "0" * 64, "d" * 64


class Server:
    """A coordinator, members that answer as they are told to, and a clock that is set by hand."""

    def __init__(self, members=3, rounds=4, journal=None, plane="round", p=0.0, *, anchored=False, **options):
        kind = {"mix": "average", "reference": "anchor"} if anchored else {"mix": "shuffle"}
        terms = Terms(
            run_name="t",
            seed=1,
            members=members,
            rounds=rounds,
            local_steps=1,
            exchange=ExchangeConfig(p=p, schedule="constant", exchange_plane=plane, **kind),
        )
        self.journal = Journal.in_memory() if journal is None else journal
        given = {"initial": INITIAL, "timeout": 100.0, "start_timeout": 10.0, "min_members": 2, **options}
        layout, first = layout_of([("a", (9,))]), np.zeros((1, 9), np.float32) if anchored else None
        self.coordinator = Coordinator(terms, layout, self.journal, ServerOptions(**given), first=first)
        self.now = 0.0
        self.nodes = set(range(members))
        self.commands = []

    def proceed(self, wait=False):
        if wait:
            self.now = max(self.now, self.coordinator.next_deadline())
        self.coordinator.handle(Nodes(frozenset(self.nodes)), now=self.now)
        return self._keep(self.coordinator.proceed(now=self.now))

    def reply(self, request, status=Status.DONE, *, model="", metrics=None, **fields):
        known = self.coordinator.state.membership
        initial = INITIAL if request.start is None else request.start.weights
        says = {
            "round": request.round if request.kind is Kind.TRAIN else 0,
            "initial": known[request.node].initial if request.node in known else initial,
            "incarnation": known[request.node].incarnation if request.node in known else 0,
            "applied": known[request.node].applied if request.node in known else 0,
        }
        answer = Answer(status, request.node, **(says | fields))
        return self._keep(
            self.coordinator.handle(Replied(request.number, answer, model, metrics or {}), now=self.now)
        )

    def fail(self, request, lost=None):
        failure = Failure("planted", its_own=False, lost=lost)
        return self._keep(self.coordinator.handle(Replied(request.number, failure), now=self.now))

    def asked(self, kind):
        found = [
            each.request for each in self.commands if isinstance(each, Ask) and each.request.kind is kind
        ]
        self.commands = []
        return found

    def join(self):
        """Have all nodes that are there join with the initial weights, and the first round begin."""
        self.proceed()
        for request in self.asked(Kind.JOIN):
            self.reply(request)
        self.proceed()
        self.proceed()

    # On streams

    def hello(self, member, applied=0):
        coordinator = self.coordinator
        hello = Hello(
            VERSION,
            coordinator.run,
            coordinator.state.packets.draw.layout.fingerprint,
            member,
            coordinator.exchanges.token(member),
            1,
            applied,
            INITIAL,
            0,
        )
        (told,) = coordinator.handle(hello, now=self.now)
        return told.reply

    def offer(self, member, exchange=1, applied=0, *, damaged=False, chain=0):
        packet = self.packet(member, exchange, chain)
        event = Offered(member, exchange, applied, packet[:-1] if damaged else packet)
        commands = self.coordinator.handle(event, now=self.now)
        return {each.member: each.reply.status for each in commands if isinstance(each, Tell)}

    def packet(self, member, exchange=1, chain=0):
        """Return the packet of an offer."""
        packets = self.coordinator.state.packets
        values = np.full((1, packets.draw.count(exchange)), 1 + member, np.float32)
        return packets.offer(member, exchange, values, chain)

    def _keep(self, commands):
        self.commands += commands
        return commands


def test_a_run_from_its_start_to_its_end():
    server = Server(rounds=2, recalibrate=True)
    server.join()
    for number in (1, 2):
        requests = server.asked(Kind.TRAIN)
        assert [(each.node, each.round) for each in requests] == [(0, number), (1, number), (2, number)]
        for request in requests:
            server.reply(request)
        commands = server.proceed() + server.proceed()
        assert [type(each) for each in commands if isinstance(each, Settled | RoundEnded)] == [
            Settled,
            RoundEnded,
        ]
    used = []
    for at_a_time in (2, 1):
        server.proceed()
        requests = server.asked(Kind.COLLECT)
        assert len(requests) == at_a_time
        assert server.proceed() == [], "no more models at a time than these"
        for request in requests:
            used += server.reply(request, model="m", round=2)
    server.proceed()
    assert used == [UseModel(0), UseModel(1), UseModel(2)]
    assert any(isinstance(each, AllCollected) for each in server.commands)
    for request in server.asked(Kind.RECALIBRATE):
        server.reply(request)
    server.proceed()
    assert server.coordinator.done and sorted(server.coordinator.collection.members) == [0, 1, 2]
    server.coordinator.dismiss()
    server.proceed()
    assert len(server.asked(Kind.LEAVE)) == 3 and not server.coordinator.done


def test_with_too_few_nodes_it_ends_and_says_what_to_do():
    server = Server()
    server.nodes = {0}
    server.proceed()
    with pytest.raises(RunError, match=r"1 of 2 clients connected within 10 s: start the others"):
        server.proceed(wait=True)


def with_a_newcomer():
    """Return a server in its second round, which asks member 0 for weights that member 2 can start from."""
    server = Server()
    server.nodes = {0, 1}
    server.join()
    for request in server.asked(Kind.TRAIN):
        server.reply(request)
    server.nodes = {0, 1, 2}
    server.proceed()
    server.proceed()
    while True:
        asked = [each.request for each in server.commands if isinstance(each, Ask)]
        server.commands = []
        for request in asked:
            if request.kind is Kind.DONATE:
                return server, request
            server.reply(request, Status.NOT_JOINED if request.node == 2 else Status.DONE)
        server.proceed()


def test_a_newcomer_starts_from_the_weights_of_who_took_part_last():
    server, donation = with_a_newcomer()
    server.reply(donation, model=DONATED)
    (start,) = server.asked(Kind.JOIN)
    assert (start.node, start.member, start.start.weights, start.start.incarnation) == (2, 2, DONATED, 1)
    assert server.journal.enrolments()[2].initial == DONATED, "written down before it is sent"


def test_weights_that_come_twice_start_a_newcomer_once():
    server, donation = with_a_newcomer()
    server.reply(donation, model=DONATED)
    assert len(server.asked(Kind.JOIN)) == 1
    assert server.reply(donation, model=DONATED) == []


@pytest.mark.parametrize("status", [Status.NOT_JOINED, Status.REFUSED])
def test_who_cannot_give_its_weights_is_not_asked_again_in_this_round_and_another_is(status):
    server, donation = with_a_newcomer()
    server.reply(donation, status)
    server.proceed()
    (another,) = server.asked(Kind.DONATE)
    assert {donation.node, another.node} == {0, 1}
    # Who has lost its state is to start anew itself.
    assert (donation.node in server.coordinator.joining.newcomers) is (status is Status.NOT_JOINED)


def test_while_nobody_can_give_weights_a_round_waits_only_as_long_as_it_may():
    server, donation = with_a_newcomer()
    server.reply(donation, Status.NOT_JOINED)
    server.proceed()
    (another,) = server.asked(Kind.DONATE)
    server.reply(another, Status.NOT_JOINED)
    with pytest.raises(RunError, match=r"0 of the 2 members that it needs were there within 100 s"):
        for _ in range(5):
            server.proceed(wait=True)


def test_what_a_killed_process_leaves_is_asked_again_and_the_round_goes_on():
    server = Server()
    server.join()
    first, *others = server.asked(Kind.TRAIN)
    for request in others:
        server.reply(request)
    assert server.fail(first, Lost.APP) == []
    server.proceed()
    (again,) = [each for each in server.commands if isinstance(each, Ask)]
    assert again.again and again.request.number == first.number
    server.reply(first)
    assert any(isinstance(each, RoundEnded) and not each.absent for each in server.proceed())


def test_who_is_away_is_given_up_and_comes_back_from_another_start():
    server = Server(give_up_after=1, rounds=9)
    server.join()
    _, *others = server.asked(Kind.TRAIN)
    server.nodes = {1, 2}
    for request in others:
        server.reply(request)
    for _ in range(4):
        server.proceed(wait=True)
    assert server.journal.enrolments()[0].standing is Standing.GIVEN_UP


def test_who_offers_differences_to_another_anchor_starts_anew_and_the_others_exchange():
    server = Server(members=3, p=1.0, anchored=True)
    server.join()
    for request in server.asked(Kind.TRAIN):
        server.reply(request, offer=server.packet(request.node, chain=5 if request.node == 2 else 0))
    (ended,) = [each for each in server.proceed() if isinstance(each, RoundEnded)]
    assert ended.settlement.members == (0, 1)
    assert "its anchor is not the server's" in ended.absent_because[2]
    assert list(server.coordinator.joining.newcomers) == [2]


def test_a_member_that_says_nothing_when_it_is_collected_is_asked_twice_and_then_left_out():
    """Its ClientApp starved, say: that must not cost the hour that a round may take."""
    server = Server(rounds=1, timeout=3600.0)
    server.join()
    for request in server.asked(Kind.TRAIN):
        server.reply(request)
    server.proceed()
    server.proceed()
    began, times = server.now, []
    while not any(isinstance(each, AllCollected) for each in server.commands):
        for each in [each for each in server.commands if isinstance(each, Ask)]:
            server.commands.remove(each)
            if each.request.kind is Kind.COLLECT and each.request.node == 1:
                times.append(server.now - began)
            elif each.request.kind is Kind.COLLECT:
                server.reply(each.request, model="m", round=1)
        server.proceed(wait=True)
    assert times == [0.0, pytest.approx(600, abs=1)], "once, and once more"
    assert server.now - began < 1300
    assert "was not collected" in server.coordinator.collection.left_out[1]


# On streams


def test_who_offers_differences_to_another_anchor_on_a_stream_is_told_to_start_anew():
    server = Server(members=2, plane="stream", p=1.0, anchored=True)
    server.join()
    for member in (0, 1):
        server.hello(member)
    assert server.offer(0, chain=5) == {0: ServerStatus.ANEW}
    assert server.offer(0) == {}
    assert server.offer(1) == {0: ServerStatus.DELIVERED, 1: ServerStatus.DELIVERED}


def test_an_offer_that_comes_once_more_and_damaged_is_still_the_one_that_is_out():
    """Were it refused, its member would train on, and what it offered is another's by then."""
    server = Server(members=2, plane="stream", p=1.0)
    server.join()
    for member in (0, 1):
        assert server.hello(member).status is ServerStatus.WELCOME
    assert server.offer(0) == {}
    assert server.hello(0).status is ServerStatus.WELCOME
    assert server.offer(0, damaged=True) == {}
    assert server.offer(1) == {0: ServerStatus.DELIVERED, 1: ServerStatus.DELIVERED}


def test_an_offer_that_is_damaged_is_refused_and_the_member_may_offer_again():
    server = Server(members=2, plane="stream", p=1.0)
    server.join()
    for member in (0, 1):
        server.hello(member)
    assert server.offer(0, damaged=True) == {0: ServerStatus.REFUSED}
    assert server.offer(0) == {}
    assert server.offer(1) == {0: ServerStatus.DELIVERED, 1: ServerStatus.DELIVERED}


def test_who_still_exchanges_when_the_server_is_back_and_is_not_asked_takes_part_all_the_same():
    """Its node works on the request of the server before, and answers no other meanwhile."""
    before = Server(members=3, plane="stream", p=1.0)
    before.join()
    server = Server(members=3, plane="stream", p=1.0, journal=before.journal, exchange_deadline=1e3)
    assert server.hello(2).status is ServerStatus.WELCOME
    assert server.offer(2) == {}
    server.nodes.discard(2)
    while not (asked := [each for each in server.commands if isinstance(each, RoundBegan)]):
        for request in server.asked(Kind.JOIN):
            server.reply(request)
        server.proceed(wait=True)
    assert [each.node for each in server.asked(Kind.TRAIN)] == [0, 1] and len(asked) == 1
    for member in (0, 1):
        server.hello(member)
    assert server.offer(0) == {}
    assert server.offer(1) == dict.fromkeys((0, 1, 2), ServerStatus.DELIVERED)


def test_who_is_ahead_of_the_journal_starts_anew_even_when_the_numbers_are_level():
    """The journal was replaced by an older copy: what it holds is of a history that never was."""
    first = Server(members=3, rounds=9)
    first.join()
    journal = first.journal

    def meet(**of_the_third):
        server = Server(members=3, rounds=9, journal=journal)
        server.proceed()
        for request in server.asked(Kind.JOIN):
            server.reply(request, **(of_the_third if request.node == 2 else {}))
        return server

    server = meet(round=2, applied=1)
    enrolled = server.coordinator.state.membership[2]
    assert enrolled.standing is Standing.GIVEN_UP and "an older copy" in enrolled.reason
    assert 2 not in server.coordinator.state.membership.nodes
    again = meet(round=1, applied=0)
    assert list(again.coordinator.joining.newcomers) == [2]


# Whose requests they are


def test_requests_carry_what_each_member_said_when_it_was_asked_who_it_is():
    server = Server(rounds=1, server="s")
    server.proceed()
    for request in server.asked(Kind.JOIN):
        assert (request.server, request.fence) == ("s", "")
        server.reply(request, fence=f"token {request.node}")
    server.proceed()
    server.proceed()
    requests = server.asked(Kind.TRAIN)
    assert [each.fence for each in requests] == ["token 0", "token 1", "token 2"]
    for request in requests:
        server.reply(request)
    server.proceed()
    server.proceed()
    for request in server.asked(Kind.COLLECT):
        assert request.fence == f"token {request.node}"
        server.reply(request, model="m", round=1)
    server.proceed()
    server.reply(server.asked(Kind.COLLECT)[0], model="m", round=1)
    server.proceed()
    assert server.coordinator.done
    server.coordinator.dismiss()
    server.proceed()
    assert [each.fence for each in server.asked(Kind.LEAVE)] == ["token 0", "token 1", "token 2"]


def test_who_was_met_by_another_server_is_asked_again_who_it_is_and_goes_on():
    server = Server(rounds=4, server="s")
    server.join()
    for request in server.asked(Kind.TRAIN):
        if request.node == 2:
            server.reply(request, Status.UNMET, reason="another server has asked", fence="")
        else:
            server.reply(request)
    server.proceed()
    server.proceed()
    (again,) = server.asked(Kind.JOIN)
    assert (again.node, again.server, again.start) == (2, "s", None)
    server.reply(again, fence="new")
    membership = server.coordinator.state.membership
    assert membership.nodes[2] == 2 and membership[2].standing is Standing.ACTIVE
    server.commands = []
    for request in server.coordinator.outstanding():
        server.reply(request)
    server.proceed()
    server.proceed()
    assert {each.node: each.fence for each in server.asked(Kind.TRAIN)}[2] == "new"


# Members that do not reach the stream port


def on_streams(**options):
    """Return a server on the stream plane whose first round is under way."""
    server = Server(members=3, rounds=4, plane="stream", p=1.0, **options)
    server.join()
    return server


def trained_alone(server, *requests, **fields):
    """Let members reply that they trained, and exchanged nothing."""
    for request in requests:
        server.reply(request, metrics={EXCHANGES: 0.0}, **fields)


def offer_in_reply(server, request, exchange):
    server.reply(request, offer=server.packet(request.member, exchange))


def test_where_no_two_members_call_replies_bring_the_offers(caplog):
    server = on_streams()
    trained_alone(server, *server.asked(Kind.TRAIN))
    with caplog.at_level("WARNING", "flwr.wash_fl"):
        server.proceed()
        server.proceed()
    assert "members [0, 1, 2] trained round 1 for themselves" in caplog.text
    assert "once per round" in caplog.text
    requests = server.asked(Kind.TRAIN)
    assert [(each.round, each.exchange, each.delivery) for each in requests] == [(2, 1, b"")] * 3
    assert server.hello(0).status is ServerStatus.DENIED
    for request in requests:
        offer_in_reply(server, request, 1)
    server.proceed()
    server.proceed()
    (settled,) = [each for each in server.commands if isinstance(each, Settled)]
    assert (settled.settlement.exchange, settled.settlement.members) == (1, (0, 1, 2))
    requests = server.asked(Kind.TRAIN)
    assert [(each.round, each.exchange, bool(each.delivery)) for each in requests] == [(3, 2, True)] * 3
    assert server.coordinator.state.membership.rounds == 2


def test_who_refuses_because_it_waits_for_an_answer_on_its_stream_counts_too():
    """After a restart every member may have an offer out, and nobody trains."""
    server = on_streams()
    for request in server.asked(Kind.TRAIN):
        server.reply(request, Status.REFUSED, reason="the server was not reached", unreached=True)
    server.proceed()
    server.proceed()
    assert [each.exchange for each in server.asked(Kind.TRAIN)] == [1, 1, 1]


def test_as_long_as_two_members_call_there_are_streams():
    server = on_streams()
    requests = server.asked(Kind.TRAIN)
    for member in (0, 1):
        server.hello(member)
    trained_alone(server, *requests)
    server.proceed()
    server.proceed()
    assert [each.exchange for each in server.asked(Kind.TRAIN)] == [0, 0, 0]


def test_a_late_offer_of_an_earlier_round_is_not_taken_for_this_one():
    server = on_streams()
    trained_alone(server, *server.asked(Kind.TRAIN))
    server.proceed()
    server.proceed()
    late, *others = server.asked(Kind.TRAIN)
    for request in others:
        offer_in_reply(server, request, 1)
    server.now += 100.0
    server.proceed()
    server.proceed()
    assert {each.exchange for each in server.asked(Kind.TRAIN)} == {2}
    offer_in_reply(server, late, 1)
    assert server.coordinator.state.escrow.offered == frozenset()


def test_another_server_begins_with_streams_again():
    server = on_streams()
    trained_alone(server, *server.asked(Kind.TRAIN))
    server.proceed()
    server.proceed()
    again = Server(members=3, rounds=4, plane="stream", p=1.0, journal=server.journal)
    again.proceed()
    for request in again.asked(Kind.JOIN):
        again.reply(request, round=1)
    again.proceed()
    again.proceed()
    assert [(each.round, each.exchange) for each in again.asked(Kind.TRAIN)] == [(2, 0)] * 3
