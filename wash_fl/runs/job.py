"""The main job on the server: train the members, average them, evaluate, export, and write it all down."""

import logging
import os
from contextlib import suppress

from flwr.serverapp import Grid

import wash_fl
from wash_fl.config import RunConfig
from wash_fl.consensus.batchnorm import estimate
from wash_fl.consensus.finish import Evaluator, Outcome
from wash_fl.consensus.treatment import re_estimated
from wash_fl.core.cost import cost_of_run
from wash_fl.core.recipes import sentence
from wash_fl.flower.faulty_grid import with_faults
from wash_fl.flower.options import StrategyOptions
from wash_fl.flower.records import Arrays, array_record
from wash_fl.flower.strategy import WashStrategy
from wash_fl.member.parameters import model_layout
from wash_fl.member.slots import travelling_slots
from wash_fl.member.state_dict import batchnorm_layers, state_arrays
from wash_fl.member.training import make_optimizer
from wash_fl.runs.deciding import decided
from wash_fl.runs.events import Events
from wash_fl.runs.exporting import export_averaged
from wash_fl.runs.figures import draw_figures
from wash_fl.runs.folder import AVERAGED, FIGURES, JOURNAL, MODEL, SUMMARY, RunFolder
from wash_fl.stream.place import Place
from wash_fl.tasks.division import refuse_division
from wash_fl.tasks.models import initial_model
from wash_fl.tasks.task import Task, load_task

logger = logging.getLogger("flwr.wash_fl")


def run_job(grid: Grid, config: RunConfig) -> RunFolder:
    """Run the whole job over a Flower grid and return the run's folder.

    A run whose name is that of one that did not finish goes on where it was.
    """
    grid = with_faults(grid)
    task = load_task(config.task.task)
    refuse_division(task, config)
    config = decided(config, task)
    with RunFolder.at_work(config) as folder:
        _run(grid, folder, task, config)
    return folder


def _run(grid: Grid, folder: RunFolder, task: Task, config: RunConfig) -> None:
    """Do the job in a folder that no other server works in; what happens is logged there."""
    logger.info("the run's folder is %s", folder.path)
    folder.log(
        "resume" if folder.has_journal else "start",
        version=wash_fl.__version__,
        task=config.task.task,
        rounds=config.training.rounds,
        recipe=config.exchange.recipe,
        schedule=config.exchange.schedule,
        mix=config.exchange.mix,
        pid=os.getpid(),  # whoever follows the run sees when this process is gone
    )
    try:
        evaluator = Evaluator(task, config)
        outcome, strategy = _train(grid, evaluator, folder)
        finish(folder, evaluator, outcome, strategy)
        if not config.fleet.keep_members:
            # Not before the result is on the disk: until then a crash asks the members for theirs again.
            strategy.dismiss(grid)
        folder.log("finished", summary=SUMMARY, bytes=strategy.traffic.total())
    except BaseException as error:
        with suppress(OSError):  # a full disk may be the very reason
            folder.log("failed", reason=_reason(error))
        raise


def _reason(error: BaseException) -> str:
    """Return why a job has failed, in words."""
    if isinstance(error, SystemExit | KeyboardInterrupt):
        return "it was told to end"  # by `flwr stop`, which Flower makes an exit with status 0
    return str(error) or type(error).__name__


def _train(grid: Grid, evaluator: Evaluator, folder: RunFolder) -> tuple[Outcome, WashStrategy]:
    task, config = evaluator.task, evaluator.config
    training, fleet = config.training, config.fleet
    model = initial_model(config.task.model, task, training.seed)
    slots = travelling_slots(make_optimizer(model, training), config.exchange)
    layout = model_layout(model, slots)
    del model
    cost = cost_of_run(layout, config.exchange, training.rounds, training.local_steps, seed=training.seed)
    folder.log("exchanges", does=sentence(config.exchange), up=cost.up, down=cost.down, fedavg=cost.fedavg)
    options = StrategyOptions.of(
        config,
        run_name=folder.path.name,
        journal=folder.path / JOURNAL,
        keep_members=True,
        classes=task.classes,
        averaged_buffers=task.averaged_buffers,
    )
    events = Events(folder, evaluator)
    strategy = WashStrategy(
        layout, options, place=Place.from_environment(os.environ), watcher=events.watcher()
    )
    events.traffic = strategy.traffic
    strategy.traffic.before = folder.last("round").get("bytes", {})
    result = strategy.start(
        grid,
        # In place, and nowhere kept: the server holds no model while the members train.
        array_record(state_arrays(initial_model(config.task.model, task, training.seed))),
        num_rounds=training.rounds,
        timeout=fleet.round_timeout,
    )
    weights: Arrays = {name: array.numpy() for name, array in result.arrays.items()}
    if config.finish.batchnorm == "server":
        averaged = evaluator.model(weights)
        if batchnorm_layers(averaged):
            statistics = estimate(averaged, evaluator.server_calibration())
            weights = statistics.applied_to(weights)
            strategy.buffers = re_estimated(strategy.buffers, statistics.buffers())
    return evaluator.outcome(weights), strategy


def finish(folder: RunFolder, evaluator: Evaluator, outcome: Outcome, strategy: WashStrategy) -> None:
    """Save the averaged model, export it, draw the figures, and write the summary last."""
    folder.save_weights(outcome.weights)
    folder.log("recalibrated", accuracy=outcome.recalibrated)
    parity = export_averaged(folder, evaluator, outcome.weights, folder.path / MODEL)
    summary = {
        "run": folder.path.name,
        "version": wash_fl.__version__,
        "weights_sha256": outcome.sha256,
        "members": strategy.collected,
        "left_out": {str(member): reason for member, reason in strategy.left_out.items()},
        "accuracy": {
            "members": {str(member): value for member, value in outcome.members.items()},
            "mean_member": outcome.mean_member,
            "ensemble": outcome.ensemble,
            "averaged_before_batchnorm": outcome.averaged,
            "averaged": outcome.recalibrated,
        },
        "buffers": strategy.buffers,
        "bytes": strategy.traffic.total(),
        "onnx": {"largest_difference": parity.largest_difference, "agreement": parity.agreement},
        "files": [AVERAGED, MODEL, FIGURES],
    }
    draw_figures(folder.path / FIGURES, list(folder.events()), summary)
    folder.save_summary(summary)
    logger.info("averaged accuracy %.4f, ensemble %.4f", outcome.recalibrated, outcome.ensemble)
    logger.info("the model is %s", folder.path / MODEL)
