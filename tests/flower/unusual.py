"""Models whose state dicts are not one name for one plain parameter; from (batch, 6) to (batch, 3)."""

import torch
from torch import nn
from torch.nn.utils import parametrizations, spectral_norm
from torch.utils.data import TensorDataset

CLASSES = ("a", "b", "c")
INPUT_SHAPE = (6,)
WIDTH = 6


def data(seed: int, size: int) -> TensorDataset:
    inputs = torch.randn(size, 6, generator=torch.Generator().manual_seed(seed)) * 2.0 + 1.0
    return TensorDataset(inputs, inputs[:, :3].argmax(1))


class Base(nn.Module):
    """A first and a last layer, and something between them."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(6, WIDTH)
        self.between()
        self.last = nn.Linear(WIDTH, 3)

    def between(self) -> None:
        """Register what is between them."""

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        outputs: torch.Tensor = self.last(torch.relu(self.inside(self.first(inputs))))
        return outputs

    def inside(self, hidden: torch.Tensor) -> torch.Tensor:
        return hidden


class OneName(Base):
    """The twin of those below it that have a BatchNorm of two names."""

    def between(self) -> None:
        self.norm = nn.BatchNorm1d(WIDTH)

    def inside(self, hidden: torch.Tensor) -> torch.Tensor:
        outputs: torch.Tensor = self.norm(hidden)
        return outputs


class TwoNames(OneName):
    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(self.first, self.norm)


class ListedChildren(OneName):
    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(*self.children())


class NamedBuffer(OneName):
    def between(self) -> None:
        super().between()
        # Registered before the layer's own name comes, and under a name that says nothing of BatchNorm.
        self.register_buffer("center", self.norm.running_mean)


class UsedTwice(OneName):
    def inside(self, hidden: torch.Tensor) -> torch.Tensor:
        outputs: torch.Tensor = self.norm(torch.relu(self.norm(hidden)) + hidden)
        return outputs


class Tied(Base):
    def between(self) -> None:
        self.second = nn.Linear(6, WIDTH, bias=False)
        self.second.weight = self.first.weight

    def inside(self, hidden: torch.Tensor) -> torch.Tensor:
        outputs: torch.Tensor = self.second(torch.relu(hidden))
        return outputs


class InAList(Base):
    def between(self) -> None:
        self.scale = nn.Parameter(torch.ones(WIDTH))
        self.scales = nn.ParameterList([self.scale])

    def inside(self, hidden: torch.Tensor) -> torch.Tensor:
        return hidden * self.scales[0] * self.scale


class TwoParametersOneMemory(Base):
    def between(self) -> None:
        self.second = nn.Linear(6, WIDTH, bias=False)
        self.second.weight = nn.Parameter(self.first.weight.detach())

    def inside(self, hidden: torch.Tensor) -> torch.Tensor:
        outputs: torch.Tensor = self.second(torch.relu(hidden))
        return outputs


class Spectral(Base):
    def between(self) -> None:
        self.second = parametrizations.spectral_norm(nn.Linear(WIDTH, WIDTH))

    def inside(self, hidden: torch.Tensor) -> torch.Tensor:
        outputs: torch.Tensor = self.second(torch.relu(hidden))
        return outputs


class SpectralHook(Spectral):
    def between(self) -> None:
        self.second = spectral_norm(nn.Linear(WIDTH, WIDTH))


class SpectralOfTwoNames(Spectral):
    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(self.second)


class Masked(Base):
    """Attention over a hidden layer of which the last place is masked out."""

    def between(self) -> None:
        self.register_buffer("mask", torch.tensor([0.0] * (WIDTH - 1) + [float("-inf")]))
        self.register_buffer("places", torch.linspace(0, 1, WIDTH))
        self.frozen = nn.Parameter(torch.full((WIDTH,), 0.5), requires_grad=False)

    def inside(self, hidden: torch.Tensor) -> torch.Tensor:
        return torch.softmax(hidden + self.mask, 1) * WIDTH + self.places * self.frozen


class Counting(Base):
    """Keeps a running mean, a quantile, an EMA copy and counters, none of which PyTorch knows of."""

    def between(self) -> None:
        self.register_buffer("ema_mean", torch.zeros(WIDTH))
        self.register_buffer("quantile", torch.zeros(()))
        self.register_buffer("batches", torch.tensor(0))
        self.register_buffer("seen", torch.tensor(False))
        self.copy = nn.Parameter(self.first.weight.detach().clone(), requires_grad=False)

    def inside(self, hidden: torch.Tensor) -> torch.Tensor:
        if self.training:
            with torch.no_grad():
                self.ema_mean.lerp_(hidden.mean(0), 0.1)
                self.quantile.copy_(hidden.quantile(0.9))
                self.batches += int((hidden > 0).sum())
                self.seen.fill_(True)
                self.copy.lerp_(self.first.weight, 0.5)
        return hidden - self.ema_mean


class InstanceNorm(Base):
    def between(self) -> None:
        self.norm = nn.InstanceNorm1d(2, track_running_stats=True)

    def inside(self, hidden: torch.Tensor) -> torch.Tensor:
        outputs: torch.Tensor = self.norm(hidden.reshape(len(hidden), 2, -1)).reshape(len(hidden), -1)
        return outputs


class Transposed(Base):
    def between(self) -> None:
        self.first.weight = nn.Parameter((torch.randn(6, WIDTH) * 0.3).t())
        self.register_buffer("frame", torch.arange(12.0).reshape(3, 4).t())
        self.register_buffer("every_other", torch.arange(10.0)[::2])

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        # How a product of matrices is rounded may depend on strides, on some processors.
        hidden = nn.functional.linear(inputs, self.first.weight.contiguous(), self.first.bias)
        outputs: torch.Tensor = self.last(torch.relu(hidden))
        return outputs


class Orthogonal(Base):
    def between(self) -> None:
        self.second = parametrizations.orthogonal(nn.Linear(WIDTH, WIDTH))

    def inside(self, hidden: torch.Tensor) -> torch.Tensor:
        outputs: torch.Tensor = self.second(hidden)
        return outputs


class TwoDimensions(Base):
    """A convolution that lies in memory with its channels last."""

    def between(self) -> None:
        self.conv = nn.Conv2d(2, 2, 2, padding=1).to(memory_format=torch.channels_last)

    def inside(self, hidden: torch.Tensor) -> torch.Tensor:
        picture = hidden.reshape(-1, 2, 3, 1)
        outputs: torch.Tensor = self.conv(picture)[:, :, :3, :1].reshape(len(hidden), -1)
        return outputs


class OnlyInTraining(OneName):
    """Has a second BatchNorm that no example reaches in evaluation mode."""

    def between(self) -> None:
        super().between()
        self.helper = nn.BatchNorm1d(WIDTH)

    def inside(self, hidden: torch.Tensor) -> torch.Tensor:
        if self.training:
            hidden = hidden + 0.1 * self.helper(hidden)
        return super().inside(hidden)
