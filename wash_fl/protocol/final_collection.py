"""The end of a run: each member hands in its whole model, once, and their mean is re-estimated."""

import logging
from collections.abc import Iterable
from typing import Final

from wash_fl.errors import RunError
from wash_fl.protocol.commands import AllCollected, UseModel
from wash_fl.protocol.deadline import MODEL_TRIES, model_seconds
from wash_fl.protocol.messages import Answer, Failure, Kind, Request, Start, Status
from wash_fl.protocol.reasons import in_words
from wash_fl.protocol.state import ServerState
from wash_fl.protocol.turn import Flow

logger = logging.getLogger("flwr.wash_fl")

IN_FLIGHT: Final = 2
"""Whole models on their way to the server at a time: enough to keep it busy, few enough to hold."""

AVERAGED: Final = "averaged"
"""What the averaged model is called in a request's start."""

_NOT_THERE = "it was not there when the members were collected"


class FinalCollection:
    """Collects the members' models, and decides which are averaged.

    Parameters
    ----------
    state : ServerState
        What the server knows.

    Attributes
    ----------
    members : list of int
        The members whose models are used, as they came.
    left_out : dict of int to str
        Those that are not in the average, and why; known once all are collected.
    """

    def __init__(self, state: ServerState) -> None:
        self.members: list[int] = []
        self.left_out: dict[int, str] = {}
        self._state = state
        self._turn = state.turn
        self._membership = state.membership
        self._requests = state.requests
        self._options = state.options

    def collect(self) -> Flow:
        """Collect the model of every member that is there, and have the average re-estimated.

        Raises
        ------
        RunError
            If there is nothing to average.
        """
        here = self._membership.here(self._turn.connected)
        collecting = (
            self._request(Kind.COLLECT, node, member, delivery=self._state.delivery(member))
            for member, node in here.items()
        )
        yield from self._requests.until_answered(collecting, in_flight=IN_FLIGHT)
        if not self.members:
            why = "; ".join(in_words(self._membership.reasons)) or "none is there"
            raise RunError(f"no member handed in its model, and there is nothing to average: {why}.")
        absent = sorted(here.keys() - set(self.members))
        logger.info("collected members %s%s", sorted(self.members), f", without {absent}" if absent else "")
        self._note_left_out(here)
        self._turn.commands.append(AllCollected())
        if self._options.recalibrate:
            start = Start(AVERAGED)
            yield from self._requests.until_answered(
                self._request(Kind.RECALIBRATE, node, member, start=start)
                for member, node in sorted(here.items())
            )

    def answered(self, request: Request, answer: Answer | Failure, model: str) -> None:
        """Use a member's model for the average, if it is that of the member on record."""
        member = request.member
        if isinstance(answer, Failure) or answer.status is not Status.DONE:
            self._membership.missed(member, answer.reason or "it holds no state of this run")
            return
        if answer.member != member:
            logger.warning("member %d: its reply names member %d; it is ignored", member, answer.member)
            return
        self._membership.did(member)
        if reason := self._membership.inconsistent(member, answer):
            self._not_averaged(member, reason)
            return
        self._membership.acknowledge(member, answer.applied)
        if answer.round == 0:
            self._not_averaged(member, "it never trained")
        elif not model:
            self._membership.missed(member, "its model is not what is expected; see the log")
        elif member not in self.members:
            self.members.append(member)
            self._turn.commands.append(UseModel(member))

    def _not_averaged(self, member: int, reason: str) -> None:
        self._membership.missed(member, reason)
        logger.warning("member %d: %s, so it is not averaged", member, reason)

    def _note_left_out(self, here: Iterable[int]) -> None:
        self.left_out = self._membership.left_out()
        everybody = range(self._state.terms.members)
        for member in set(everybody) - set(self.members) - self.left_out.keys():
            what = "its model was not collected" if member in here else _NOT_THERE
            reason = self._membership.reasons.get(member, "")
            self.left_out[member] = what + (f": {reason.rstrip('.')}" if reason else "")
        for member, reason in sorted(self.left_out.items()):
            logger.warning("member %d is not in the average: %s", member, reason)

    def _request(self, kind: Kind, node: int, member: int, **fields: object) -> Request:
        ttl = model_seconds(self._state.packets.draw.layout.size, self._options.timeout)
        return self._requests.ask(kind, node, ttl, member=member, tries=MODEL_TRIES, **fields)
