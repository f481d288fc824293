"""The beginning of a run: clients become members, all from the same weights."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from flwr.serverapp import Grid
from safetensors.numpy import load_file

from wash_fl.core.layout import Layout
from wash_fl.core.terms import Terms
from wash_fl.errors import RunError
from wash_fl.planes import records
from wash_fl.planes.asking import ask, understand
from wash_fl.planes.records import Status
from wash_fl.planes.traffic import Traffic

logger = logging.getLogger("flwr.wash_fl")


@dataclass(frozen=True)
class JoinRequest:
    """What a client is asked to agree to.

    Attributes
    ----------
    terms : Terms
        The terms of the run.
    layout : Layout
        What is exchanged; the client's model must have the same.
    initial : Path
        Safetensors file of the weights that all members start from.
    sha256 : str
        Their hash, which each member confirms.
    """

    terms: Terms
    layout: Layout
    initial: Path
    sha256: str


def join_members(
    grid: Grid, nodes: Sequence[int], request: JoinRequest, *, wanted: int, timeout: float, traffic: Traffic
) -> dict[int, int]:
    """Send nodes the terms and the initial weights.

    Parameters
    ----------
    grid : Grid
        Flower's way to the nodes.
    nodes : sequence of int
        Those that are connected.
    request : JoinRequest
        What they are asked to agree to.
    wanted : int
        Members without whom the run does not start.
    timeout : float
        Seconds to wait for their answers.
    traffic : Traffic
        Where the bytes are counted.

    Returns
    -------
    dict of int to int
        The node of each member that joined.

    Raises
    ------
    RunError
        If fewer than ``wanted`` join.
    """
    fields = {"terms": request.terms.to_json(), "layout": records.layout_to_json(request.layout)}
    arrays = records.array_record(load_file(request.initial))
    requests = {node: records.request(node, records.JOIN, fields, timeout, arrays) for node in nodes}
    joined: dict[int, int] = {}
    problems: list[str] = []
    for node, reply in ask(grid, requests, timeout=timeout, in_flight=len(requests)):
        given = understand(f"node {node}", "the request to join", reply)
        if given is None or given.status is not Status.DONE:
            problems.append(
                given.reason if given else f"node {node} did not answer as a member; see the log."
            )
            continue
        traffic.model_down(given.member, requests[node])
        if given.initial != request.sha256:
            problems.append(f"member {given.member} started from other weights than the server's.")
        elif given.member in joined or given.member >= request.terms.members:
            problems.append(
                f"node {node} is member {given.member}, which has joined already or is not of this run: "
                f"give each node a partition-id of its own, 0 to {request.terms.members - 1}."
            )
        else:
            joined[given.member] = node
            continue
        logger.warning("node %d is left out: %s", node, problems[-1])
    if len(joined) < wanted:
        raise RunError(f"{len(joined)} of {wanted} members joined: {problems[0] if problems else 'too few.'}")
    logger.info("members %s joined, with the same initial weights", sorted(joined))
    return joined
