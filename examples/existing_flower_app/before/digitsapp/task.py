"""digitsapp: A Flower / PyTorch app."""

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


class Net(nn.Module):
    """Model (simple CNN for images of 8x8 pixels)."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 16, 3, padding=1)
        self.pool = nn.MaxPool2d(2, 2)
        self.conv2 = nn.Conv2d(16, 32, 3, padding=1)
        self.fc1 = nn.Linear(32 * 2 * 2, 64)
        self.fc2 = nn.Linear(64, 10)

    def forward(self, x):
        """Return one output per digit."""
        x = self.pool(F.relu(self.conv1(x)))
        x = self.pool(F.relu(self.conv2(x)))
        x = F.relu(self.fc1(x.flatten(1)))
        return self.fc2(x)


def digits(rows: slice) -> TensorDataset:
    """Return some of scikit-learn's digits, in an order that is the same everywhere."""
    data = load_digits()
    order = torch.randperm(len(data.target), generator=torch.Generator().manual_seed(42))[rows]
    images = torch.tensor(data.images / 16).float().unsqueeze(1)
    return TensorDataset(images[order], torch.tensor(data.target)[order])


def load_data(partition_id: int, num_partitions: int, batch_size: int):
    """Load a client's part of the data."""
    partition = digits(slice(360 + partition_id, None, num_partitions))
    # Divide data on each node: 80% train, 20% validation
    train_rows = len(partition) * 4 // 5
    trainset = TensorDataset(*partition[:train_rows])
    valset = TensorDataset(*partition[train_rows:])
    return DataLoader(trainset, batch_size=batch_size, shuffle=True), DataLoader(valset, batch_size=128)


def load_centralized_dataset():
    """Load the test set, which no client has."""
    return DataLoader(digits(slice(360)), batch_size=128)


def train(net, trainloader, epochs, optimizer, decay):
    """Train the model on the training set."""
    device = next(net.parameters()).device
    criterion = torch.nn.CrossEntropyLoss().to(device)
    net.train()
    losses = []
    for _ in range(epochs):
        for images, labels in trainloader:
            optimizer.zero_grad()
            loss = criterion(net(images.to(device)), labels.to(device))
            loss.backward()
            optimizer.step()
            decay.step()
            losses.append(loss.item())
    return sum(losses) / len(losses)


def test(net, testloader, device):
    """Validate the model on the test set."""
    net.to(device)
    criterion = torch.nn.CrossEntropyLoss()
    correct, loss = 0, 0.0
    net.eval()
    with torch.no_grad():
        for images, labels in testloader:
            outputs = net(images.to(device))
            loss += criterion(outputs, labels.to(device)).item()
            correct += (outputs.argmax(1) == labels.to(device)).sum().item()
    return {"loss": loss / len(testloader), "accuracy": correct / len(testloader.dataset)}
