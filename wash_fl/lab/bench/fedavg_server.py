"""A ServerApp with Flower's own FedAvg, which writes down when rounds end and how good its model is."""

from pathlib import Path

from flwr.app import ArrayRecord, Context, MetricRecord
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

from wash_fl.config import RunConfig
from wash_fl.consensus.evaluate import accuracy, logits_of
from wash_fl.runs.folder import METRICS
from wash_fl.runs.json_lines import append_line
from wash_fl.tasks.division import tensors_of, test_examples
from wash_fl.tasks.models import initial_model
from wash_fl.tasks.task import load_task

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Train a global model on the connected clients."""
    config = RunConfig.from_mapping(context.run_config)
    training = config.training
    task = load_task(config.task.task)
    inputs, targets = tensors_of(test_examples(task, config))
    model = initial_model(config.task.model, task, training.seed)
    metrics = Path(config.fleet.run_dir) / config.fleet.run_name / METRICS

    def evaluate(number: int, arrays: ArrayRecord) -> MetricRecord | None:
        if number == 0:  # the initial weights, before the first round
            append_line(metrics, {"event": "start"})
            return None
        append_line(metrics, {"event": "round", "round": number})
        model.load_state_dict(arrays.to_torch_state_dict())
        value = accuracy(logits_of(model, inputs), targets.numpy())
        append_line(metrics, {"event": "evaluated", "round": number, "accuracy": value})
        return MetricRecord({"accuracy": value})

    strategy = FedAvg(
        fraction_evaluate=0.0, min_train_nodes=training.members, min_available_nodes=training.members
    )
    strategy.start(
        grid,
        ArrayRecord(model.state_dict()),
        num_rounds=training.rounds,
        timeout=config.fleet.round_timeout,
        evaluate_fn=evaluate,
    )
    append_line(metrics, {"event": "finished"})
