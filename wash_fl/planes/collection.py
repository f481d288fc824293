"""The end of a run: each member's whole model, once; their mean; its BatchNorm statistics."""

import logging
from collections import Counter
from collections.abc import Callable, Iterator, Mapping

from flwr.app import Message

from wash_fl.consensus.averaging import ModelAverage
from wash_fl.consensus.batchnorm import BatchNormStatistics, pool
from wash_fl.errors import ExchangeError, RunError
from wash_fl.faults import points
from wash_fl.planes import records
from wash_fl.planes.arrays import Spec, read_arrays, read_statistics
from wash_fl.planes.asking import understand
from wash_fl.planes.post import Post
from wash_fl.planes.records import Answer, Arrays, Status
from wash_fl.planes.roster import Roster
from wash_fl.planes.traffic import Traffic

logger = logging.getLogger("flwr.wash_fl")

IN_FLIGHT = 2
"""Whole models on their way to the server at a time: enough to keep it busy, few enough to hold."""


def model_of(member: int, reply: Message, expected: Spec) -> Arrays | None:
    """Return the whole model in a member's reply, or None, with the reason in the log, if it is not one."""
    try:
        # One member must not decide for the others what a model looks like.
        return read_arrays(reply.content.array_records.get(records.ARRAYS), expected)
    except ExchangeError as error:
        logger.warning("member %d: its model is not used: %s", member, error)
        return None


def done(
    post: Post, requests: Mapping[int, Message], *, in_flight: int = 0
) -> Iterator[tuple[int, Message, Answer]]:
    """Ask members, and yield the replies of those that did it; why others did not is in the log."""
    to = [(member, request.metadata.dst_node_id, request) for member, request in requests.items()]
    for errand, reply in post.ask(to, in_flight or len(to)):
        given = understand(errand.who, errand.kind, reply)
        if reply is None or given is None or given.status is not Status.DONE:
            continue
        if given.member != errand.member:
            logger.warning("%s: its reply names member %d; it is ignored", errand.who, given.member)
            continue
        yield errand.member, reply, given


def collect_members(
    post: Post,
    requests: Mapping[int, Message],
    *,
    model: Spec,
    traffic: Traffic,
    roster: Roster,
    on_member: Callable[[int, Arrays], None],
) -> ModelAverage:
    """Collect each member's model, and add it to the average as it comes.

    Raises
    ------
    RunError
        If no member handed in a trained model.
    """
    average = ModelAverage()
    for member, reply, given in done(post, requests, in_flight=IN_FLIGHT):
        if reason := roster.astray(member, given):
            logger.warning("member %d: %s, so it is not averaged", member, reason)
            continue
        roster.acknowledge(member, given.applied)
        if given.round == 0:
            logger.warning("member %d: it never trained, so it is not averaged", member)
            continue
        traffic.model_up(member, requests[member], reply)
        arrays = model_of(member, reply, model)
        if arrays is not None:
            average.add(member, arrays)
            on_member(member, arrays)
            points.reach("collected")
    if not average.members:
        raise RunError("no member handed in its model: there is nothing to average. See the log for why.")
    absent = sorted(requests.keys() - set(average.members))
    logger.info("averaged members %s%s", sorted(average.members), f", without {absent}" if absent else "")
    return average


def recalibrate(post: Post, requests: Mapping[int, Message], averaged: Arrays, *, traffic: Traffic) -> Arrays:
    """Have the clients estimate the averaged model's BatchNorm statistics over their data, and pool them."""
    estimates: dict[int, BatchNormStatistics] = {}
    for member, reply, _ in done(post, requests):
        traffic.asked(member, requests[member], reply)
        try:
            record = reply.content.array_records.get(records.ARRAYS)
            estimates[member] = read_statistics(record, averaged)
        except ExchangeError as error:
            logger.warning("member %d: its BatchNorm statistics are not used: %s", member, error)
    if not estimates:
        logger.warning("no client re-estimated BatchNorm: its statistics are the members' average")
        return averaged
    # In order of members, for float addition is not associative.
    return pool(_of_the_same_layers(estimates)).applied_to(averaged)


def _of_the_same_layers(estimates: Mapping[int, BatchNormStatistics]) -> list[BatchNormStatistics]:
    """Return the estimates of those layers of which most members have some, in order of members."""
    layers = {member: frozenset(estimates[member].mean) for member in sorted(estimates)}
    usual, _ = Counter(layers.values()).most_common(1)[0]
    for member, own in layers.items():
        if own != usual:
            logger.warning("member %d: its BatchNorm statistics are not of the others' layers", member)
    return [estimates[member] for member, own in layers.items() if own == usual]
