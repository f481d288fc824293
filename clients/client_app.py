"""The ClientApp that `flwr run .` loads: one member of the ensemble."""

import torch
from flwr.app import Context
from flwr.clientapp import ClientApp

from wash_fl.config import RunConfig
from wash_fl.consensus.evaluate import accuracy, logits_of
from wash_fl.flower.client import Participant, Round, member_index, participant
from wash_fl.member.training import LocalTraining, make_optimizer, placed
from wash_fl.tasks.division import member_examples, tensors_of, test_examples
from wash_fl.tasks.models import initial_model
from wash_fl.tasks.task import load_task

app = ClientApp()


@participant(app)
def member(context: Context) -> Participant:
    """Bring this client's model, optimizer, data and training."""
    # With other members on the machine's cores, more threads would make each of them slower.
    torch.set_num_threads(1)
    config = RunConfig.from_mapping(context.run_config)
    task = load_task(config.task.task)
    # With the weights that the run begins with: they need not be sent.
    model = placed(initial_model(config.task.model, task, config.training.seed), config.training)
    optimizer = make_optimizer(model, config.training)
    index = member_index(context)
    training = LocalTraining(config, task, member_examples(task, config, index), index)

    def train(now: Round) -> dict[str, float]:
        return training.run(model, optimizer, now.first_step, now.steps, now.progress)

    def evaluate() -> dict[str, float]:
        inputs, targets = tensors_of(test_examples(task, config))
        return {"accuracy": accuracy(logits_of(model, inputs), targets.numpy())}

    return Participant(
        model=model,
        optimizer=optimizer,
        train=train,
        evaluate=evaluate,
        calibration=training.calibration,
        classes=task.classes,
    )
