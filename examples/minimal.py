"""WASH on one page, for reading: PyTorch, scikit-learn's digits, no network, and nothing of wash_fl.

Four members learn the same data in different order. After each optimizer step they swap a few random
parameters, so that they stay close enough to be averaged and far enough apart to be worth it.
(Fournier et al. 2024, arXiv 2405.17517)

    python examples/minimal.py
"""

import copy

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn.functional import cross_entropy

MEMBERS = 4  # an even number: they swap in pairs
STEPS = 400  # optimizer steps of each member
P = 0.1  # how probable it is that a parameter of the first layer is swapped after a step
BATCH = 32
LEARNING_RATE = 0.5
SEED = 1  # with 0 an isolated member does not learn, which would make their average look worse than it is


def new_model():
    """Return a small CNN for images of 8x8 pixels, with BatchNorm."""
    return nn.Sequential(
        *(nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(16, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 10)),
    )


@torch.no_grad()
def shuffle(members, p, generator):
    """Swap random parameters between random pairs of members: the whole of WASH.

    Nothing is made up and nothing is lost: at each coordinate the members hold the same values as before,
    so their mean does not change.
    """
    order = torch.randperm(len(members), generator=generator).tolist()
    tensors = list(zip(*(member.parameters() for member in members), strict=True))
    for depth, tensor in enumerate(tensors):  # one tensor of all members at a time
        # The layers near the input are swapped most, the last one never (section 3 of the paper).
        probability = p * (1 - depth / (len(tensors) - 1))
        chosen = torch.rand(tensor[0].shape, generator=generator) < probability
        for a, b in zip(order[::2], order[1::2], strict=True):
            tensor[a][chosen], tensor[b][chosen] = tensor[b][chosen], tensor[a][chosen]


def train(inputs, targets, p):
    """Train the members, with a shuffle after each step if p is not 0."""
    torch.manual_seed(SEED)
    first = new_model()
    members = [copy.deepcopy(first) for _ in range(MEMBERS)]  # all start from the same weights
    orders = [torch.Generator().manual_seed(SEED + 1 + index) for index in range(MEMBERS)]
    shuffles = torch.Generator().manual_seed(SEED)
    optimizers = [torch.optim.SGD(each.parameters(), lr=LEARNING_RATE) for each in members]
    for step in range(STEPS):
        for member, optimizer, order in zip(members, optimizers, orders, strict=True):
            optimizer.param_groups[0]["lr"] = LEARNING_RATE * (1 - step / STEPS)
            batch = torch.randint(len(inputs), (BATCH,), generator=order)
            optimizer.zero_grad()
            cross_entropy(member(inputs[batch]), targets[batch]).backward()
            optimizer.step()
        if p:
            shuffle(members, p, shuffles)
    return members


@torch.no_grad()
def average(members, inputs):
    """Return the mean of the members as one model, its BatchNorm statistics estimated anew."""
    model = copy.deepcopy(members[0])
    for parameter, *same in zip(*(each.parameters() for each in (model, *members)), strict=True):
        parameter.copy_(torch.stack(same).mean(0))
    # The members' statistics describe their own activations, not those of their mean.
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.reset_running_stats()
            layer.momentum = None  # the plain mean over the batches
    model.train()
    for batch in inputs.split(256):
        model(batch)
    return model


@torch.no_grad()
def accuracy(models, inputs, targets):
    """Return how often the models together are right: the mean of their probabilities decides."""
    answers = sum(model.eval()(inputs).softmax(1) for model in models)
    return (answers.argmax(1) == targets).float().mean().item()


def main():
    """Train with WASH and without, and compare what the average is worth."""
    torch.set_num_threads(1)  # so that the same seed gives the same numbers
    digits = load_digits()
    shuffled = torch.randperm(len(digits.target), generator=torch.Generator().manual_seed(SEED))
    inputs = torch.tensor(digits.images / 16).float().unsqueeze(1)[shuffled]
    targets = torch.tensor(digits.target)[shuffled]
    known, new = slice(360, None), slice(360)
    for name, p in (("WASH", P), ("isolated", 0.0)):
        members = train(inputs[known], targets[known], p)
        averaged = average(members, inputs[known])
        alone = sum(accuracy([each], inputs[new], targets[new]) for each in members) / MEMBERS
        print(
            f"{name:<9} members {alone:.2%}   ensemble {accuracy(members, inputs[new], targets[new]):.2%}   "
            f"averaged into one model {accuracy([averaged], inputs[new], targets[new]):.2%}"
        )


if __name__ == "__main__":
    main()
