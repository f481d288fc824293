"""WASH as a Flower strategy: members train, the escrow shuffles slices of them, one model comes out."""

import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Result, Strategy
from safetensors.numpy import save_file

from wash_fl.config import ExchangeConfig
from wash_fl.core.draw import Draw
from wash_fl.core.escrow import Escrow, Verdict
from wash_fl.core.identity import run_identity, weights_sha256
from wash_fl.core.journal import Journal
from wash_fl.core.layout import Layout
from wash_fl.core.packet import Direction, PacketError, Slice, decode, encode
from wash_fl.core.terms import Terms
from wash_fl.errors import RunError
from wash_fl.planes import records
from wash_fl.planes.asking import understand, wait_for_nodes
from wash_fl.planes.collection import collect_members, done, recalibrate
from wash_fl.planes.joining import JoinRequest, join_members
from wash_fl.planes.records import Arrays, Status
from wash_fl.planes.traffic import Traffic
from wash_fl.planes.watching import RoundReport, Watcher, mean_metrics

logger = logging.getLogger("flwr.wash_fl")


EMPTY_ROUNDS = 3
"""Rounds in a row without any member after which a run is given up."""


@dataclass
class _Roster:
    """Which node is which member, and what was sent to whom in the current round."""

    nodes: dict[int, int] = field(default_factory=dict)
    sent: dict[int, Message] = field(default_factory=dict)
    started: float = 0.0


class WashStrategy(Strategy):
    """Train an ensemble with weight shuffling, then average it into one model.

    Each client trains one member. Every round the members offer small random slices of their parameters;
    the escrow shuffles them among those who offered and returns them with the next round. After the last
    round each member hands in its model once, and their mean is the result.

    Parameters
    ----------
    layout : Layout
        What is exchanged: :func:`wash_fl.member.parameters.model_layout` of the model.
    members : int
        Size of the ensemble. Clients are members by their ``partition-id``, 0 to members - 1.
    local_steps : int
        Optimizer steps of each member per round.
    exchange : ExchangeConfig
        What is exchanged, and how it is mixed.
    seed : int
        The run seed.
    run_name : str
        Tells runs apart; empty makes one from the time.
    min_members : int
        Members needed to start; 0 means all.
    start_timeout : float
        Seconds to wait for the clients to connect.
    evaluate_every : int
        Ask members to evaluate themselves every so many rounds; 0 never does.
    recalibrate : bool
        Re-estimate the averaged model's BatchNorm statistics on the clients' data.
    keep_members : bool
        Leave the members' state on the clients after the run.
    watcher : Watcher
        Told of progress.
    journal : Journal
        Where the escrow records its decisions; in memory by default.

    Examples
    --------
    In a ServerApp::

        strategy = WashStrategy(model_layout(Net()), members=4, local_steps=100)
        result = strategy.start(grid, ArrayRecord(Net().state_dict()), num_rounds=20)
        model.load_state_dict(result.arrays.to_torch_state_dict())
    """

    def __init__(
        self,
        layout: Layout,
        *,
        members: int,
        local_steps: int,
        exchange: ExchangeConfig | None = None,
        seed: int = 0,
        run_name: str = "",
        min_members: int = 0,
        start_timeout: float = 120.0,
        evaluate_every: int = 0,
        recalibrate: bool = True,
        keep_members: bool = False,
        watcher: Watcher | None = None,
        journal: Journal | None = None,
    ) -> None:
        if members < 2 or not 0 <= min_members <= members:
            raise RunError(
                f"members = {members} with min_members = {min_members}: at least 2 members exchange, and no "
                "more can be waited for than there are."
            )
        self._layout = layout
        self._exchange = exchange or ExchangeConfig()
        self._members = members
        self._min_members = min_members or members
        self._start_timeout = start_timeout
        self._local_steps = local_steps
        self._seed = seed
        self._run_name = run_name or datetime.now(UTC).isoformat()
        self._evaluate_every = evaluate_every
        self._recalibrate_on_clients = recalibrate
        self._keep_members = keep_members
        self._watcher = watcher or Watcher()
        self._journal = journal
        self._roster = _Roster()
        self._empty_rounds = 0
        self._last_reason = ""
        self.traffic = Traffic()
        self.collected: list[int] = []

    def summary(self) -> None:
        """Log the strategy's settings."""
        exchange, layout = self._exchange, self._layout
        logger.info("\t├──> WASH: %s, %d members", exchange.mix, self._members)
        logger.info("\t│\t├── p = %g per %s, %s", exchange.p, exchange.p_per, exchange.schedule)
        logger.info("\t│\t├── topology: %s, slots: %s", exchange.topology, ", ".join(layout.slots))
        logger.info("\t│\t└── seed: %d", self._seed)
        logger.info("\t└──> %d parameters in %d tensors", layout.size, len(layout.tensors))

    def start(  # noqa: PLR0917 (Flower's own signature)
        self,
        grid: Grid,
        initial_arrays: ArrayRecord,
        num_rounds: int = 3,
        timeout: float = 3600,
        train_config: ConfigRecord | None = None,
        evaluate_config: ConfigRecord | None = None,
        evaluate_fn: Callable[[int, ArrayRecord], MetricRecord | None] | None = None,
    ) -> Result:
        """Run the whole job: join, rounds, collection, averaging.

        Parameters
        ----------
        grid : Grid
            Flower's way to the clients.
        initial_arrays : ArrayRecord
            The weights that all members start from: a new model's state dict, or a pre-trained one's.
        num_rounds : int
            Rounds; one exchange each.
        timeout : float
            Seconds to wait for the members in one round.
        train_config, evaluate_config : ConfigRecord, optional
            Not used: a member's training is its own. Refused when given, so that none is ignored silently.
        evaluate_fn : callable, optional
            Evaluates the averaged model; called once, after the last round.

        Returns
        -------
        Result
            Its ``arrays`` are the averaged model's state dict.

        Raises
        ------
        RunError
            If too few members join, their models differ, or nobody takes part any more.
        """
        if train_config or evaluate_config:
            raise RunError(
                "WashStrategy.start() takes no train_config or evaluate_config: "
                "give options to the clients through the run config."
            )
        terms = Terms(
            run_name=self._run_name,
            seed=self._seed,
            members=self._members,
            rounds=num_rounds,
            local_steps=self._local_steps,
            exchange=self._exchange,
        )
        self._run = run_identity(terms)
        self._draw = Draw(self._seed, self._layout, terms.schedule)
        self._escrow = Escrow(self._draw, self._exchange, self._journal)
        self._timeout = timeout
        self._rounds = num_rounds
        with TemporaryDirectory(prefix="wash-fl-") as folder:
            # On disk, so that the server holds no model while the members train.
            initial = Path(folder) / "initial.safetensors"
            arrays = records.named_arrays(initial_arrays)
            save_file(arrays, initial)
            sha256 = weights_sha256(arrays)
            del initial_arrays, arrays
            nodes = wait_for_nodes(grid, self._min_members, self._start_timeout)
            request = JoinRequest(terms, self._layout, initial, sha256)
            self._roster.nodes = join_members(
                grid, nodes, request, wanted=self._min_members, timeout=timeout, traffic=self.traffic
            )
        result = super().start(grid, ArrayRecord(), num_rounds, timeout)
        result.arrays = records.array_record(self._finish(grid))
        if evaluate_fn is not None:
            metrics = evaluate_fn(num_rounds, result.arrays)
            if metrics is not None:
                result.evaluate_metrics_serverapp[num_rounds] = metrics
        return result

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> list[Message]:
        """Send each member the round's number, and what the exchange before gave it."""
        del arrays, config, grid
        roster = self._roster
        roster.started = time.monotonic()
        evaluate = bool(self._evaluate_every) and (
            server_round % self._evaluate_every == 0 or server_round == self._rounds
        )
        roster.sent = {}
        for member, node in sorted(roster.nodes.items()):
            fields = {
                "run": self._run,
                "round": server_round,
                "evaluate": evaluate,
                "delivery": self._delivery(member),
            }
            roster.sent[member] = records.request(node, records.TRAIN, fields, self._timeout)
        self._escrow.open(server_round, roster.sent.keys())
        # A list, for a deployment's grid iterates twice.
        return list(roster.sent.values())

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Take the offers, settle the exchange, and report the round."""
        roster = self._roster
        # Pushing gave each message its id; a failed node's reply says only which message it is about.
        asked = {message.metadata.message_id: member for member, message in roster.sent.items()}
        metrics: dict[int, dict[str, float]] = {}
        heard: set[int] = set()
        for reply in replies:
            member = asked.get(reply.metadata.reply_to_message_id)
            if member is None:
                logger.warning("round %d: a reply to a message of another round is ignored", server_round)
                continue
            self.traffic.round_trip(member, roster.sent[member], reply, again=member in heard)
            heard.add(member)
            reported = self._take(server_round, member, reply)
            if reported is not None:
                metrics[member] = reported
        for member in sorted(roster.sent.keys() - heard):
            logger.warning(
                "member %d: no reply in round %d; it is not part of the exchange", member, server_round
            )
        roster.sent = {}
        self._check_alive(server_round, took_part=bool(metrics))
        settlement = self._escrow.settle()
        report = RoundReport(
            server_round, settlement, metrics, self.traffic, time.monotonic() - roster.started
        )
        self._watcher.on_round(report)
        return None, mean_metrics(report)

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> list[Message]:
        """Nothing to send: there is no global model before the end."""
        return []

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> None:
        """Nothing to aggregate."""
        return

    def _check_alive(self, server_round: int, *, took_part: bool) -> None:
        """End a run in which nobody takes part: it would go on to average untrained models."""
        self._empty_rounds = 0 if took_part else self._empty_rounds + 1
        if self._empty_rounds >= min(EMPTY_ROUNDS, self._rounds):
            raise RunError(
                f"no member took part in round {server_round}"
                + (f" and the {self._empty_rounds - 1} before it" if self._empty_rounds > 1 else "")
                + (
                    f"; the last one heard said: {self._last_reason}"
                    if self._last_reason
                    else ": see the log."
                )
            )

    def _delivery(self, member: int) -> bytes:
        waiting = self._escrow.delivery(member)
        if waiting is None:
            return b""
        return encode(
            Slice(Direction.DELIVERY, self._run, self._layout, waiting.exchange, member, waiting.values)
        )

    def _take(self, server_round: int, member: int, reply: Message) -> dict[str, float] | None:
        """Take a member's reply to a round: its acknowledgement, its offer, its metrics."""
        given = understand(f"member {member}", f"round {server_round}", reply)
        if given is None or given.status is not Status.DONE:
            self._last_reason = given.reason if given else self._last_reason
            return None
        if given.member != member:
            logger.warning("member %d: its reply names member %d; it is ignored", member, given.member)
            return None
        self._escrow.acknowledge(member, given.applied)
        if given.offer:
            try:
                offer = decode(
                    given.offer,
                    direction=Direction.OFFER,
                    run=self._run,
                    layout=self._layout,
                    member=member,
                    exchange=server_round,
                    count=self._draw.count,
                )
            except PacketError as error:
                logger.warning("member %d: %s It keeps its own values", member, error)
                return None
            verdict = self._escrow.offer(member, server_round, offer.values)
            if verdict is not Verdict.ACCEPTED:
                logger.warning("member %d: its offer in round %d is %s", member, server_round, verdict)
        found = reply.content.metric_records.get(records.METRICS, MetricRecord())
        return {name: float(value) for name, value in found.items() if isinstance(value, (int, float))}

    def _to_all(
        self, kind: str, fields: dict[str, bytes], arrays: ArrayRecord | None = None
    ) -> dict[int, Message]:
        """Return the same request for every member."""
        return {
            member: records.request(node, kind, fields, self._timeout, arrays)
            for member, node in sorted(self._roster.nodes.items())
        }

    def _finish(self, grid: Grid) -> Arrays:
        """Collect and average the members, re-estimate BatchNorm, and let the members go."""
        collect = {
            member: records.request(
                node, records.COLLECT, {"run": self._run, "delivery": self._delivery(member)}, self._timeout
            )
            for member, node in sorted(self._roster.nodes.items())
        }
        average = collect_members(
            grid, collect, timeout=self._timeout, traffic=self.traffic, on_member=self._watcher.on_member
        )
        self.collected = sorted(average.members)
        averaged = average.mean()
        self._watcher.on_average(averaged, False)
        if self._recalibrate_on_clients and any(name.endswith(".running_var") for name in averaged):
            requests = self._to_all(records.RECALIBRATE, {}, records.array_record(averaged))
            averaged = recalibrate(grid, requests, averaged, timeout=self._timeout, traffic=self.traffic)
            self._watcher.on_average(averaged, True)
        if not self._keep_members:
            for _ in done(grid, self._to_all(records.LEAVE, {"run": self._run}), timeout=self._timeout):
                pass
        return averaged
