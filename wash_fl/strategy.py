"""WASH as a Flower strategy: members train, the escrow shuffles slices of them, one model comes out."""

import logging
from collections.abc import Callable, Iterable
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Result, Strategy
from safetensors.numpy import save_file

from wash_fl.config import ExchangeConfig
from wash_fl.core.auto import chosen
from wash_fl.core.draw import Draw
from wash_fl.core.escrow import Escrow
from wash_fl.core.identity import run_identity, weights_sha256
from wash_fl.core.journal import Journal, MemoryJournal
from wash_fl.core.layout import Layout
from wash_fl.core.sqlite_journal import SqliteJournal
from wash_fl.core.terms import Terms
from wash_fl.errors import RunError
from wash_fl.faults import points
from wash_fl.planes import records
from wash_fl.planes.arrays import spec_of
from wash_fl.planes.asking import wait_for_nodes
from wash_fl.planes.clock import Clock
from wash_fl.planes.collection import collect_members, done, recalibrate
from wash_fl.planes.deadline import Deadline
from wash_fl.planes.desk import Desk
from wash_fl.planes.exchanges import Exchanges, OncePerRound
from wash_fl.planes.joining import JoinRequest, Reception
from wash_fl.planes.post import Errand, Post
from wash_fl.planes.records import Arrays
from wash_fl.planes.roster import Roster
from wash_fl.planes.rounds import FEWEST, Rounds
from wash_fl.planes.stream.exchanges import OverStreams
from wash_fl.planes.stream.place import Place
from wash_fl.planes.traffic import Traffic
from wash_fl.planes.watching import RoundReport, Watcher, mean_metrics

logger = logging.getLogger("flwr.wash_fl")

EMPTY_ROUNDS = 3
"""Rounds in a row without any member after which a run is given up."""


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
    local_seconds : float
        If not 0, seconds of training per round instead; such a run does not repeat hash for hash.
    exchange : ExchangeConfig
        What is exchanged, and how it is mixed.
    seed : int
        The run seed.
    run_name : str
        Tells runs apart; empty makes one from the time.
    journal : Path, optional
        File in which decisions are recorded before they are heard of. A run that is started again with the
        same settings, ``run_name`` and file goes on where it was. In memory by default.
    min_members : int
        Members without whom a round does not start; 0 means all at the beginning, and any 2 later.
    start_timeout : float
        Seconds to wait for the clients to connect, and for one that is lost while it works to be back.
    deadline_spread : float
        How many times the members' usual spread a round waits beyond their median; 0 waits for the whole
        ``timeout`` of :meth:`start`.
    give_up_after : int
        Rounds in a row that a member may be away before the run goes on without it; 0 never gives one up.
    outlier_factor : float
        Set a member aside whose values are so many times farther from the others' than these spread; 0
        never does.
    evaluate_every : int
        Ask members to evaluate themselves every so many rounds; 0 never does.
    recalibrate : bool
        Re-estimate the averaged model's BatchNorm statistics on the clients' data.
    keep_members : bool
        Leave the members' state on the clients after the run, until :meth:`dismiss`. With a journal, save
        the result first and dismiss the members then, and nothing can be lost between the two.
    watcher : Watcher
        Told of progress.
    clock : Clock
        What waiting is measured by.
    exchange_deadline : float
        Seconds an exchange on the stream plane waits for the members that are expected in that time.
    place : Place, optional
        Where to serve streams; by default on the loopback interface, for members on the same machine.

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
        local_seconds: float = 0.0,
        exchange: ExchangeConfig | None = None,
        seed: int = 0,
        run_name: str = "",
        journal: Path | None = None,
        min_members: int = 0,
        start_timeout: float = 120.0,
        deadline_spread: float = 6.0,
        give_up_after: int = 20,
        outlier_factor: float = 10.0,
        evaluate_every: int = 0,
        recalibrate: bool = True,
        keep_members: bool = False,
        watcher: Watcher | None = None,
        clock: Clock | None = None,
        exchange_deadline: float = 10.0,
        place: Place | None = None,
    ) -> None:
        if members < FEWEST or not 0 <= min_members <= members:
            raise RunError(
                f"members = {members} with min_members = {min_members}: at least 2 members exchange, and no "
                "more can be waited for than there are."
            )
        self._layout = layout
        self._exchange = chosen(exchange or ExchangeConfig())
        self._members = members
        self._min_members = min_members
        self._start_timeout = start_timeout
        self._local_steps = local_steps
        self._local_seconds = local_seconds
        self._seed = seed
        self._run_name = run_name or datetime.now(UTC).isoformat()
        self._journal_file = journal
        self._deadline_spread = deadline_spread
        self._give_up_after = give_up_after
        self._outlier_factor = outlier_factor
        self._evaluate_every = evaluate_every
        self._recalibrate_on_clients = recalibrate
        self._keep_members = keep_members
        self._watcher = watcher or Watcher()
        self._clock = clock or Clock()
        self._exchange_deadline = exchange_deadline
        self._place = place or Place()
        self._empty_rounds = 0
        self.traffic = Traffic()
        self.collected: list[int] = []
        self.left_out: dict[int, str] = {}

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
        """Run the whole job: join, rounds, collection, averaging; or go on with it after a crash.

        Parameters
        ----------
        grid : Grid
            Flower's way to the clients.
        initial_arrays : ArrayRecord
            The weights that all members start from: a new model's state dict, or a pre-trained one's.
        num_rounds : int
            Rounds; on the round plane one exchange each.
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
            If too few members join, their models differ, or too few take part any more.
        StateError
            If the journal is damaged, of another version or run, or in use by another server.
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
        self.summary()
        self._run = run_identity(terms)
        self._draw = Draw(self._seed, self._layout, terms.schedule)
        self._timeout = timeout
        self._last_round = num_rounds
        result = Result()
        with closing(self._open_journal()) as journal:
            often = self._exchange.streams
            self._escrow = Escrow(self._draw, self._exchange, journal, self._outlier_factor, often=often)
            self._roster = Roster(journal, self._escrow, streams=self._exchange.streams)
            with self._exchanges_of(journal) as self._exchanges:
                self._rounds = self._join(grid, terms, initial_arrays)
                del initial_arrays
                for number in range(self._roster.rounds + 1, num_rounds + 1):
                    logger.info("[ROUND %d/%d]", number, num_rounds)
                    self.configure_train(number, ArrayRecord(), ConfigRecord(), grid)
                    _, metrics = self.aggregate_train(number, self._rounds.replies(number, self._requests))
                    if metrics is not None:
                        result.train_metrics_clientapp[number] = metrics
                result.arrays = records.array_record(self._finish())
        if not self._keep_members:
            self.dismiss(grid)
        if evaluate_fn is not None:
            metrics = evaluate_fn(num_rounds, result.arrays)
            if metrics is not None:
                result.evaluate_metrics_serverapp[num_rounds] = metrics
        return result

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> list[Message]:
        """Choose who is asked, and tell each the round's number and what the exchange before gave it."""
        del arrays, config, grid
        evaluate = bool(self._evaluate_every) and (
            server_round % self._evaluate_every == 0 or server_round == self._last_round
        )
        ttl = self._rounds.ttl()
        self._requests = {}
        for member, node in self._rounds.gather(server_round).items():
            fields = {
                "run": self._run,
                "round": server_round,
                "evaluate": evaluate,
                "seconds": self._local_seconds,
                **self._exchanges.fields(member, self._request.delivery(self._escrow, member)),
            }
            self._requests[member] = records.request(node, records.TRAIN, fields, ttl)
        self._exchanges.begin(server_round, self._requests)
        return list(self._requests.values())

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Take the offers, settle the exchange, and report the round."""
        metrics: dict[int, dict[str, float]] = {}
        heard: set[int] = set()
        for reply in replies:
            # A failed node's reply says only which message it is about.
            errand = self._rounds.asked.get(reply.metadata.reply_to_message_id)
            if errand is None:
                logger.warning("round %d: a reply to a message of another round is ignored", server_round)
                continue
            member = errand.member
            self.traffic.round_trip(member, errand.request, reply, again=member in heard)
            heard.add(member)
            reported = self._desk.take(server_round, member, reply)
            if reported is not None:
                metrics[member] = reported
                self._roster.took_part[member] = server_round
                points.reach("offered", exchange=server_round)
        for member in sorted(self._requests.keys() - heard):
            logger.warning(
                "member %d: no reply in round %d; it is not part of the exchange", member, server_round
            )
        self._check_alive(server_round, took_part=bool(metrics))
        settlement = self._exchanges.end(server_round)
        absent = tuple(member for member in self._roster.active() if member not in metrics)
        seconds = self._exchanges.clock.now() - self._rounds.began
        report = RoundReport(server_round, settlement, absent, metrics, self.traffic, seconds)
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

    def dismiss(self, grid: Grid) -> None:
        """Let the members remove their state of this run: it is over, and its result is safe."""
        requests = self._to_all(self._roster.nodes, records.LEAVE, {"run": self._run})
        for _ in done(Post(grid, self._clock), requests):
            pass

    def _open_journal(self) -> Journal:
        if self._journal_file is None:
            return MemoryJournal()
        # Many exchanges a second: what a power cut may take, the members' own record tells.
        synchronous = "NORMAL" if self._exchange.streams else "FULL"
        return SqliteJournal.open(
            self._journal_file, self._run, self._layout.fingerprint, synchronous=synchronous
        )

    def _exchanges_of(self, journal: Journal) -> Exchanges:
        if not self._exchange.streams:
            return OncePerRound(self._escrow, self._roster, self._clock)
        over = OverStreams(
            self._run,
            self._draw,
            self._escrow,
            self._roster,
            journal,
            place=self._place,
            members=self._members,
            deadline=self._exchange_deadline,
            patience=self._start_timeout,
            clock=self._clock,
            on_exchange=self._watcher.on_exchange,
        )
        self.traffic.streams = over.counted
        return over

    def _join(self, grid: Grid, terms: Terms, initial_arrays: ArrayRecord) -> Rounds:
        """Meet the clients, and have them start from the initial weights or go on where they are."""
        arrays = records.named_arrays(initial_arrays)
        del initial_arrays
        resumed = bool(self._roster.active())
        if resumed:
            logger.info(
                "the journal has %d settled exchanges of this run: going on after them", self._escrow.settled
            )
        self._request = JoinRequest(self._run, terms, self._layout, weights_sha256(arrays), spec_of(arrays))
        post = Post(grid, self._exchanges.clock, patience=self._start_timeout, extra=self.traffic.request)
        reception = Reception(
            grid,
            self._request,
            self._roster,
            self._escrow,
            post,
            traffic=self.traffic,
            timeout=self._timeout,
        )
        wanted = len(self._roster.active()) if resumed else self._min_members or self._members
        enough = self._min_members or (FEWEST if resumed else self._members)
        with TemporaryDirectory(prefix="wash-fl-") as folder:
            # On disk, so that the server holds no model while the members train.
            initial = Path(folder) / "initial.safetensors"
            save_file(arrays, initial)
            del arrays
            nodes = wait_for_nodes(
                grid, wanted, self._start_timeout, enough=enough, clock=self._exchanges.clock
            )
            reception.begin(nodes, initial, wanted=min(wanted, enough))
        self._desk = Desk(self._run, self._draw, self._escrow, self._roster, reception)
        return Rounds(
            grid,
            self._roster,
            reception,
            post,
            Deadline(self._timeout, self._deadline_spread),
            last_round=self._last_round,
            timeout=self._timeout,
            min_members=self._min_members,
            give_up_after=self._give_up_after,
            take_late=self._take_late,
            clock=self._exchanges.clock,
        )

    def _take_late(self, errand: Errand, reply: Message) -> None:
        """Take a reply to an earlier round: its offer comes too late, its acknowledgement counts."""
        self.traffic.round_trip(errand.member, errand.request, reply)
        self._desk.take(errand.round, errand.member, reply)

    def _check_alive(self, server_round: int, *, took_part: bool) -> None:
        """End a run in which nobody takes part: it would go on to average untrained models."""
        self._empty_rounds = 0 if took_part else self._empty_rounds + 1
        if self._empty_rounds >= min(EMPTY_ROUNDS, self._last_round):
            raise RunError(
                f"no member took part in round {server_round}"
                + (f" and the {self._empty_rounds - 1} before it" if self._empty_rounds > 1 else "")
                + (
                    f"; the last one heard said: {self._desk.last_reason}"
                    if self._desk.last_reason
                    else ": see the log."
                )
            )

    def _to_all(
        self,
        nodes: dict[int, int],
        kind: str,
        fields: dict[str, bytes],
        arrays: ArrayRecord | None = None,
    ) -> dict[int, Message]:
        """Return the same request for every member."""
        return {
            member: records.request(node, kind, fields, self._timeout, arrays)
            for member, node in sorted(nodes.items())
        }

    def _finish(self) -> Arrays:
        """Collect and average the members, and re-estimate BatchNorm."""
        here = self._rounds.assemble(self._start_timeout)
        collect = {
            member: records.request(
                node,
                records.COLLECT,
                {"run": self._run, "delivery": self._request.delivery(self._escrow, member)},
                self._timeout,
            )
            for member, node in here.items()
        }
        average = collect_members(
            self._rounds.post,
            collect,
            model=self._request.model,
            traffic=self.traffic,
            roster=self._roster,
            on_member=self._watcher.on_member,
        )
        self.collected = sorted(average.members)
        self.left_out = self._roster.left_out()
        for member in set(range(self._members)) - set(self.collected) - self.left_out.keys():
            self.left_out[member] = "it was not there when the members were collected"
        for member, reason in sorted(self.left_out.items()):
            logger.warning("member %d is not in the average: %s", member, reason)
        averaged = average.mean()
        self._watcher.on_average(averaged, False)
        points.reach("averaged")
        if self._recalibrate_on_clients and any(name.endswith(".running_var") for name in averaged):
            requests = self._to_all(here, records.RECALIBRATE, {}, records.array_record(averaged))
            averaged = recalibrate(self._rounds.post, requests, averaged, traffic=self.traffic)
            self._watcher.on_average(averaged, True)
        return averaged
