"""What the members hand in at the end: each one's whole model, and BatchNorm statistics of the average."""

import logging
from collections import Counter
from collections.abc import Mapping

from flwr.app import ArrayRecord, Message

from wash_fl.consensus.batchnorm import BatchNormStatistics, pool
from wash_fl.core.rules import StateRules
from wash_fl.errors import ExchangeError
from wash_fl.flower import records
from wash_fl.flower.arrays import Spec, read_arrays, read_statistics
from wash_fl.flower.records import Arrays

logger = logging.getLogger("flwr.wash_fl")


def model_of(member: int, reply: Message, expected: Spec) -> Arrays | None:
    """Return the whole model in a member's reply, or None, with the reason in the log, if it is not one."""
    try:
        # One member must not decide for the others what a model looks like.
        return read_arrays(reply.content.array_records.get(records.ARRAYS), expected)
    except ExchangeError as error:
        logger.warning("member %d: its model is not used: %s", member, error)
        return None


def pooled(
    given: Mapping[int, ArrayRecord | None], averaged: Arrays, rules: StateRules
) -> BatchNormStatistics | None:
    """Return the averaged model's BatchNorm statistics over all clients' data, from what each estimated.

    Parameters
    ----------
    given : mapping of int to ArrayRecord or None
        What came from each member.
    averaged : dict of str to ndarray
        The averaged model.
    rules : StateRules
        Which of it are BatchNorm's.

    Returns
    -------
    BatchNormStatistics or None
        None if no client's can be used; why is in the log.
    """
    estimates: dict[int, BatchNormStatistics] = {}
    for member, record in given.items():
        try:
            estimates[member] = read_statistics(record, averaged, rules)
        except ExchangeError as error:
            logger.warning("member %d: its BatchNorm statistics are not used: %s", member, error)
    if not estimates:
        logger.warning("no client re-estimated BatchNorm: its statistics are the members' average")
        return None
    # In order of members, for float addition is not associative.
    return pool(_of_the_same_layers(estimates))


def _of_the_same_layers(estimates: Mapping[int, BatchNormStatistics]) -> list[BatchNormStatistics]:
    """Return the estimates of those layers of which most members have some, in order of members."""
    layers = {member: frozenset(estimates[member].mean) for member in sorted(estimates)}
    usual, _ = Counter(layers.values()).most_common(1)[0]
    for member, own in layers.items():
        if own != usual:
            logger.warning("member %d: its BatchNorm statistics are not of the others' layers", member)
    return [estimates[member] for member, own in layers.items() if own == usual]
