"""A round as the server lives it: who is asked, how long it waits, and what comes too late."""

import logging
from collections.abc import Mapping
from itertools import islice
from typing import Final

from wash_fl.core.packet import PacketError
from wash_fl.errors import RunError
from wash_fl.protocol.commands import OfferTaken, RoundBegan, RoundEnded
from wash_fl.protocol.deadline import Deadline
from wash_fl.protocol.escrow import Settlement
from wash_fl.protocol.events import Replied
from wash_fl.protocol.exchanges import Exchanges
from wash_fl.protocol.joining import Joining
from wash_fl.protocol.messages import EXCHANGES, SILENT, Failure, Kind, Request, Status
from wash_fl.protocol.presence import FEWEST, Presence
from wash_fl.protocol.reasons import in_words
from wash_fl.protocol.state import ServerState
from wash_fl.protocol.text import printable
from wash_fl.protocol.turn import Flow

logger = logging.getLogger("flwr.wash_fl")

PATIENCE: Final = 3
"""How many times a round's deadline a request is kept for a member that is late."""

EMPTY_ROUNDS: Final = 3
"""Rounds in a row without any member, or without two that could exchange, after which a run is given up."""

MOST_METRICS: Final = 100
"""Metrics of a member and round that are kept: they are written to the run's log for good."""

_RESET = Failure("it is to start anew", its_own=False)


class Rounds:
    """Has members train one round after the other, and takes whatever they answer.

    Parameters
    ----------
    state : ServerState
        What the server knows.
    joining : Joining
        How members join.
    presence : Presence
        Who is there.
    exchanges : Exchanges
        How exchanges come about.

    Attributes
    ----------
    number : int
        The round that is on; 0 before the first, and between two.
    deadline : Deadline
        How long a round waits.
    """

    def __init__(
        self, state: ServerState, joining: Joining, presence: Presence, exchanges: Exchanges
    ) -> None:
        options = state.options
        self.number = 0
        self.deadline = Deadline(options.timeout, options.deadline_spread)
        self._turn = state.turn
        self._escrow = state.escrow
        self._membership = state.membership
        self._requests = state.requests
        self._joining = joining
        self._presence = presence
        self._exchanges = exchanges
        self._terms = state.terms
        self._options = options
        self._trained = state.membership.rounds > 0
        self._empty = 0
        self._apart = 0
        self._began = 0.0
        self._asked: dict[int, Request] = {}
        self._metrics: dict[int, dict[str, float]] = {}
        self._failures: dict[int, Failure] = {}
        self._cut_off: set[int] = set()
        self._answers = 0

    # A round

    def train(self, number: int) -> Flow:
        """Have the members that are there train a round, settle its exchange, and report it.

        Raises
        ------
        RunError
            If nobody takes part any more.
        """
        self._ask(number)
        self._turn.commands.append(RoundBegan(number))
        self._joining.greet(number)
        yield self._turn.now
        while True:
            # Longer than members usually take only as long as there are too few of them.
            enough = self._answers >= self._presence.needed
            limit = self._began + (self.deadline.seconds() if enough else self._options.timeout)
            if not self._requests.waiting(Kind.TRAIN, number) or self._turn.now >= limit:
                break
            yield limit
        self._requests.abandon(number)
        for member in sorted(self._asked.keys() - self._metrics.keys() - self._failures.keys()):
            self._failures[member] = SILENT
            logger.warning("member %d: no reply in round %d; it is not part of the exchange", member, number)
        self._note_absent()
        self._check_alive(number)
        self._check_together(number)
        settlement, commands = self._exchanges.end(number, self._turn.now)
        self._turn.commands += commands
        self.number = 0
        self._turn.commands.append(self._report(number, settlement))

    # What is answered

    def replied(self, request: Request, event: Replied) -> None:
        """Take a reply to a request to train, of this round or an earlier one."""
        number, member = request.round, request.member
        reported = self._take(request, event)
        if number != self.number:
            seconds = self._turn.now - request.sent
            logger.warning(
                "member %d: its reply to round %d came after %.0f s, too late (with local-seconds slow and "
                "fast devices finish together)",
                member,
                number,
                seconds,
            )
            self._took(request)
            return
        self._answers += 1
        if not isinstance(event.answer, Failure):
            self._took(request)
        if isinstance(reported, Failure):
            self._failures[member] = reported
            return
        self._metrics[member] = reported
        self._membership.took_part[member] = number
        self._turn.commands.append(OfferTaken(number))

    def _take(self, request: Request, event: Replied) -> dict[str, float] | Failure:
        """Take what a reply acknowledges and offers; return its metrics, or why it is of no use."""
        answer, member = event.answer, request.member
        if isinstance(answer, Failure):
            return answer
        if answer.status is Status.REFUSED:
            if answer.unreached and request.round == self.number:
                self._cut_off.add(member)
            return Failure(answer.reason, its_own=not answer.unreached)
        if answer.status is Status.UNMET:
            self._joining.meet_again(member, answer.reason)
            return Failure(answer.reason, its_own=False)
        if member not in self._membership.nodes:
            return _RESET
        if answer.member != member:
            logger.warning("member %d: its reply names member %d; it is ignored", member, answer.member)
            return Failure(f"its reply names member {answer.member}", its_own=True)
        reason = self._membership.inconsistent(member, answer)
        if answer.status is Status.NOT_JOINED:
            reason = answer.reason or "it has lost its state"
        if reason:
            return self._start_anew(member, reason)
        if answer.applied > self._escrow.settled:
            problem = f"it acknowledges exchange {answer.applied}, which is not settled"
            logger.warning("member %d: %s", member, problem)
            return Failure(problem, its_own=True)
        self._membership.acknowledge(member, answer.applied)
        if answer.offer:
            try:
                reason = self._exchanges.offered(member, request.round, answer.offer)
            except PacketError as error:
                logger.warning("member %d: %s It keeps its own values", member, error)
                return Failure(printable(str(error)), its_own=True)
            if reason:
                return self._start_anew(member, reason)
        return _checked_metrics(event.metrics)

    def _start_anew(self, member: int, reason: str) -> Failure:
        self._joining.reset(member, reason)
        return Failure(f"{reason}; it is to start anew", its_own=False)

    def _took(self, request: Request) -> None:
        """Take note of how long a member took, as far as its answer tells."""
        if not self._requests.reminded(request.node):
            self.deadline.took(request.member, self._turn.now - request.sent)

    # Steps of a round

    def _ask(self, number: int) -> None:
        """Ask every member that is free to train."""
        options, free = self._options, self._presence.free()
        every = options.evaluate_every
        evaluate = bool(every) and (number % every == 0 or number == self._terms.rounds)
        ttl = min(options.timeout, PATIENCE * self.deadline.seconds())
        self._requests.begin_round()
        self.number, self._began, self._answers = number, self._turn.now, 0
        self._metrics, self._failures, self._cut_off = {}, {}, set()
        deliveries = {member: self._exchanges.delivery(member) for member in free}
        offer_for = self._exchanges.replies_offer_for
        self._exchanges.begin(number, free, self._turn.now)
        self._asked = {
            member: self._requests.ask(
                Kind.TRAIN,
                node,
                ttl,
                member=member,
                round=number,
                exchange=offer_for,
                delivery=deliveries[member],
                evaluate=evaluate,
            )
            for member, node in free.items()
        }

    def _note_absent(self) -> None:
        """Take note of why each member that did not take part in the round did not."""
        for member in self._metrics:
            self._membership.did(member)
        reasons = self._presence.away | {member: failure.reason for member, failure in self._failures.items()}
        for member in self._membership.active():
            if member in reasons and member not in self._metrics:
                self._membership.missed(member, reasons[member])

    def _check_alive(self, number: int) -> None:
        """End a run in which nobody takes part: it would go on to average untrained models."""
        self._trained |= bool(self._metrics)
        self._empty = 0 if self._metrics else self._empty + 1
        # What nobody could do from the beginning, each for a reason of its own, will not be done in the next.
        failures = self._failures
        hopeless = not self._trained and all(
            member in failures and failures[member].its_own for member in self._membership.active()
        )
        if hopeless or self._empty >= min(EMPTY_ROUNDS, self._terms.rounds):
            before = f" and the {self._empty - 1} before it" if self._empty > 1 else ""
            why = "; ".join(in_words(self._membership.reasons)) or "no reason is known"
            raise RunError(f"no member took part in round {number}{before}: {why}; see the log.")

    def _check_together(self, number: int) -> None:
        """Say who had no way to the round's exchanges; find another, where members train for themselves."""
        # Who repeats what it did before need not call.
        trained = [member for member, metrics in self._metrics.items() if EXCHANGES in metrics]
        unreached = self._exchanges.unreached(trained)
        if not unreached and not self._cut_off:
            self._apart = 0
            return
        away = sorted({*unreached, *self._cut_off})
        what = (
            f"members {away} trained round {number} for themselves: they did not reach the stream "
            "port. Let the devices reach it (a firewall?), or choose exchange-plane = round"
        )
        count = len(trained) + len(self._cut_off)
        alone = count >= FEWEST and count - len(away) < FEWEST
        if alone and self._options.fallback and number < self._terms.rounds and self._exchanges.fall_back():
            self._apart = 0
            logger.warning("%s. From here on slices travel in Flower's messages, once per round", what)
            return
        self._apart = self._apart + 1 if alone else 0
        if self._apart >= min(EMPTY_ROUNDS, self._terms.rounds):
            raise RunError(f"nobody has exchanged for {self._apart} rounds; {what}.")
        logger.warning("%s", what)

    def _report(self, number: int, settlement: Settlement) -> RoundEnded:
        membership = self._membership
        absent = tuple(member for member in membership.active() if member not in self._metrics)
        reasons = {
            member: reason
            for member, reason in sorted(membership.reasons.items())
            if member in absent or member not in membership
        }
        seconds = self._turn.now - self._began
        return RoundEnded(number, settlement, absent, reasons, self._metrics, seconds)


def _checked_metrics(metrics: Mapping[str, float]) -> dict[str, float]:
    """Return the numbers among a member's metrics, as many as are kept, by printable names."""
    numbers = {
        printable(name): float(value) for name, value in metrics.items() if isinstance(value, int | float)
    }
    return dict(islice(numbers.items(), MOST_METRICS))
