"""A ClientApp under Flower's own FedAvg: a plain PyTorch loop over a task's model and a member's data."""

import math

import torch
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from wash_fl.config import RunConfig
from wash_fl.tasks.division import member_examples, tensors_of
from wash_fl.tasks.models import build_model
from wash_fl.tasks.task import load_task

app = ClientApp()


@app.train()
def train(message: Message, context: Context) -> Message:
    """Train the global model for a round on this client's examples, and send it back."""
    torch.set_num_threads(1)
    config = RunConfig.from_mapping(context.run_config)
    training = config.training
    task = load_task(config.task.task)
    model = build_model(config.task.model, task)
    model.load_state_dict(message.content.array_records["arrays"].to_torch_state_dict())
    number = int(str(message.content.config_records["config"]["server-round"]))
    member = int(context.node_config["partition-id"])
    inputs, targets = tensors_of(member_examples(task, config, member))

    steps, size = training.local_steps, training.batch_size
    generator = torch.Generator().manual_seed(training.seed * 1_000_003 + member * 1_009 + number)
    epochs = math.ceil(steps * size / len(inputs))
    order = torch.cat([torch.randperm(len(inputs), generator=generator) for _ in range(epochs)])
    optimizer = torch.optim.SGD(
        model.parameters(),
        lr=training.learning_rate,
        momentum=training.momentum,
        weight_decay=training.weight_decay,
    )
    model.train()
    loss = torch.tensor(0.0)
    for step, rows in enumerate(torch.split(order[: steps * size], size), start=(number - 1) * steps):
        # A cosine over the whole run, step by step.
        part = 0.5 * (1.0 + math.cos(math.pi * step / (training.rounds * steps)))
        rate = training.learning_rate_end + part * (training.learning_rate - training.learning_rate_end)
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.zero_grad()
        loss = task.loss(model(inputs[rows]), targets[rows])
        torch.autograd.backward(loss)
        optimizer.step()
    metrics = MetricRecord({"loss": loss.item(), "num-examples": len(inputs)})
    content = RecordDict({"arrays": ArrayRecord(model.state_dict()), "metrics": metrics})
    return Message(content, reply_to=message)
