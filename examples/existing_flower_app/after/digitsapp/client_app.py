"""digitsapp: A Flower / PyTorch app."""

from itertools import cycle, islice

import torch
from flwr.app import Context
from flwr.clientapp import ClientApp

from digitsapp.task import Net, load_data
from digitsapp.task import test as test_fn
from digitsapp.task import train as train_fn
from wash_fl import Participant, participant

# Flower ClientApp
app = ClientApp()


@participant(app)
def member(context: Context):
    """Train the model on local data."""
    # Load the model
    model = Net()
    device = torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    model.to(device)
    optimizer = torch.optim.SGD(model.parameters(), lr=context.run_config["learning-rate"], momentum=0.9)
    decay = torch.optim.lr_scheduler.ExponentialLR(optimizer, gamma=0.995)

    # Load the data
    partition_id = context.node_config["partition-id"]
    num_partitions = context.node_config["num-partitions"]
    batch_size = context.run_config["batch-size"]
    trainloader, valloader = load_data(partition_id, num_partitions, batch_size)

    # Call the training function
    def train(now):
        return {"train_loss": train_fn(model, islice(cycle(trainloader), now.steps), 1, optimizer, decay)}

    def evaluate():
        return test_fn(model, valloader, device)

    return Participant(model=model, optimizer=optimizer, train=train, evaluate=evaluate, state={"lr": decay})
