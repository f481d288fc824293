"""WASH as a Flower strategy: members train, the escrow shuffles slices of them, one model comes out."""

import logging
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from typing import Any

from flwr.app import ArrayRecord, ConfigRecord, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Result

from wash_fl.clock import Clock
from wash_fl.consensus.treatment import Treatment
from wash_fl.core.anchor import first_anchor
from wash_fl.core.identity import weights_sha256
from wash_fl.core.layout import Layout
from wash_fl.core.plane import plane_of
from wash_fl.core.recipes import exchange_of
from wash_fl.errors import RunError
from wash_fl.flower import records
from wash_fl.flower.arrays import initial_spec
from wash_fl.flower.hooks import NoHooks
from wash_fl.flower.loop import Loop
from wash_fl.flower.options import StrategyOptions
from wash_fl.flower.outbox import Fields, Outbox
from wash_fl.flower.outcome import Outcome
from wash_fl.flower.planes import Carrier, InMessages
from wash_fl.flower.records import Arrays
from wash_fl.flower.traffic import Traffic
from wash_fl.flower.watching import Watcher
from wash_fl.protocol.classes import checked_classes, classes_to_json
from wash_fl.protocol.coordinator import Coordinator
from wash_fl.protocol.final_collection import AVERAGED
from wash_fl.protocol.terms import Terms, run_identity
from wash_fl.storage.model_store import ModelStore
from wash_fl.storage.open_journal import open_journal
from wash_fl.storage.scratch import scratch_folder
from wash_fl.storage.weights_file import read_weights, write_weights
from wash_fl.stream.guard import Guard
from wash_fl.stream.place import Place
from wash_fl.stream.service import Service

logger = logging.getLogger("flwr.wash_fl")


class WashStrategy(NoHooks):
    """Train an ensemble with weight shuffling, then average it into one model.

    Each client trains one member. Every round the members offer small random slices of their parameters;
    the escrow shuffles them among those who offered and returns them with the next round. After the last
    round each member hands in its model once, and their mean is the result.

    Who joins, who is asked, how long is waited and what is settled is decided by a
    :class:`~wash_fl.protocol.coordinator.Coordinator`; this class carries its messages.

    Parameters
    ----------
    layout : Layout
        What is exchanged: :func:`wash_fl.member.parameters.model_layout` of the model.
    options : StrategyOptions, optional
        Options of the run.
    watcher : Watcher
        Told of progress.
    clock : Clock
        What waiting is measured by.
    place : Place, optional
        Where to serve streams; by default on the loopback interface, for members on the same machine.
    **settings
        Options by name, in place of ``options``: ``members`` and ``local_steps`` must be given, and
        :class:`StrategyOptions` has the others.

    Attributes
    ----------
    collected : list of int
        The members that are in the average.
    left_out : dict of int to str
        Those that are not, and why.
    traffic : Traffic
        Bytes of the run so far, by member.
    buffers : dict of str to list of str
        What was done with each buffer of the averaged model: its names, by what.

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
        options: StrategyOptions | None = None,
        *,
        watcher: Watcher | None = None,
        clock: Clock | None = None,
        place: Place | None = None,
        **settings: Any,
    ) -> None:
        if options is not None and settings:
            raise TypeError(f"options and {', '.join(settings)} were given: give one or the other")
        self._layout = layout
        self._options = options or StrategyOptions(**settings)
        self._rules = layout.rules.marked(self._options.averaged_buffers)
        self._exchange = self._options.exchange or exchange_of("auto", local_steps=self._options.local_steps)
        self._classes = checked_classes(self._options.classes)
        self._run_name = self._options.run_name or datetime.now(UTC).isoformat()
        self._watcher = watcher or Watcher()
        self._clock = clock or Clock()
        self._place = place or Place()
        self.traffic = Traffic()
        self.collected: list[int] = []
        self.left_out: dict[int, str] = {}
        self.buffers: Treatment = {}

    def summary(self) -> None:
        """Log the strategy's settings."""
        exchange, layout = self._exchange, self._layout
        logger.info("\t├──> WASH: %s, %d members", exchange.mix, self._options.members)
        logger.info("\t│\t├── p = %g per %s, %s", exchange.p, exchange.p_per, exchange.schedule)
        logger.info("\t│\t├── topology: %s, slots: %s", exchange.topology, ", ".join(layout.slots))
        logger.info("\t│\t└── seed: %d", self._options.seed)
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
            seed=self._options.seed,
            members=self._options.members,
            rounds=num_rounds,
            local_steps=self._options.local_steps,
            exchange=self._exchange,
        )
        self.summary()
        arrays = records.named_arrays(initial_arrays)
        del initial_arrays
        self._model = initial_spec(arrays, self._rules)
        with (
            scratch_folder() as folder,
            closing(open_journal(self._options.journal, terms, self._layout)) as journal,
        ):
            # On disk, so that the server holds no model while the members train.
            self._outcome = Outcome(self._model, self._watcher, ModelStore(folder), self._options)
            self._initial = folder / "initial.safetensors"
            write_weights(self._initial, arrays)
            recalibrate = self._options.recalibrate and bool(self._rules.batchnorm)
            options = self._options.server(
                initial=weights_sha256(arrays), timeout=timeout, recalibrate=recalibrate
            )
            first = first_anchor(self._layout, arrays) if terms.exchange.anchored else None
            del arrays
            coordinator = Coordinator(
                terms, self._layout, journal, options, now=self._clock.now(), first=first
            )
            del first
            self._guard = Guard(coordinator, self._clock.now)
            with self._carrier_of(terms) as carrier:
                self.traffic.streams = carrier.counted
                outbox = self._outbox(grid, carrier, terms)
                Loop(grid, self._guard, carrier, outbox, self._clock, self._outcome).run()
        if recalibrate:
            self._outcome.re_estimate(outbox.statistics)
        self._outcome.say()
        self.collected = self._outcome.members
        self.left_out = coordinator.collection.left_out | self._outcome.left_out
        self.buffers, result = self._outcome.buffers, self._outcome.result
        result.arrays = records.array_record(self._outcome.averaged)
        self._terms = terms
        if not self._options.keep_members:
            self.dismiss(grid)
        if evaluate_fn is not None:
            metrics = evaluate_fn(num_rounds, result.arrays)
            if metrics is not None:
                result.evaluate_metrics_serverapp[num_rounds] = metrics
        return result

    def dismiss(self, grid: Grid) -> None:
        """Let the members remove their state of this run: it is over, and its result is safe."""
        with self._guard.turn() as coordinator:
            coordinator.dismiss()
        carrier = InMessages()
        outbox = self._outbox(grid, carrier, self._terms)
        Loop(grid, self._guard, carrier, outbox, self._clock, self._outcome).run()

    def _outbox(self, grid: Grid, carrier: Carrier, terms: Terms) -> Outbox:
        join = {"terms": terms.to_json(), "layout": records.layout_to_json(self._layout)}
        if self._classes:
            join["classes"] = classes_to_json(self._classes)
        seconds = self._options.local_seconds
        fields = Fields(run_identity(terms), join, seconds, carrier.fields, self._weights)
        return Outbox(grid, fields, self._model, self.traffic)

    def _weights(self, name: str) -> Arrays:
        """Return the weights that a request names: the averaged model's, or the initial ones."""
        return self._outcome.averaged if name == AVERAGED else read_weights(self._initial)

    def _carrier_of(self, terms: Terms) -> Carrier:
        if plane_of(terms.exchange).once_per_round:
            return InMessages()
        members, deadline = self._options.members, self._options.exchange_deadline
        on_exchange = self._watcher.on_exchange
        return Service(self._guard, self._place, members=members, deadline=deadline, on_exchange=on_exchange)
