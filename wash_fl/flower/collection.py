"""What the members hand in at the end: each one's whole model, and BatchNorm statistics of the average."""

import logging
from collections.abc import Mapping

from flwr.app import ArrayRecord, Message

from wash_fl.consensus.batchnorm import BatchNormStatistics
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


def statistics_of(
    given: Mapping[int, ArrayRecord | None], averaged: Arrays, rules: StateRules
) -> dict[int, BatchNormStatistics]:
    """Return the BatchNorm statistics that members have estimated for the averaged model; why not is logged.

    Parameters
    ----------
    given : mapping of int to ArrayRecord or None
        What came from each member.
    averaged : dict of str to ndarray
        The averaged model.
    rules : StateRules
        Which of it are BatchNorm's.
    """
    estimates: dict[int, BatchNormStatistics] = {}
    for member, record in given.items():
        try:
            estimates[member] = read_statistics(record, averaged, rules)
        except ExchangeError as error:
            logger.warning("member %d: its BatchNorm statistics are not used: %s", member, error)
    return estimates
