"""BatchNorm statistics of the averaged model: those of its members do not fit it.

The average of the members' running statistics describes the members' activations, not those of a model
whose weights are the average. So they are estimated anew, over calibration data; on the clients, if the
data is not to leave them, and pooled.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from wash_fl.core.rules import other_names
from wash_fl.errors import DataError
from wash_fl.member.sharing import first_names, memory_of
from wash_fl.member.state_dict import batchnorm_layers


@dataclass(frozen=True, eq=False)
class BatchNormStatistics:
    """The mean and variance of every BatchNorm channel of a model over some examples.

    Attributes
    ----------
    mean, variance : dict of str to ndarray of float32, each of shape (channels,)
        By the layer's name in the model.
    examples : int
        How many examples they were estimated from.
    aliases : dict of str to str
        The other names that some of the buffers have in the model's state dict, and which those are: of a
        layer that is registered twice.
    """

    mean: dict[str, NDArray[np.float32]]
    variance: dict[str, NDArray[np.float32]]
    examples: int
    aliases: Mapping[str, str] = field(default_factory=dict)

    def buffers(self) -> dict[str, NDArray[np.float32]]:
        """Return them under the names they have in the model's state dict."""
        buffers = {f"{layer}.running_mean": mean for layer, mean in self.mean.items()}
        return buffers | {f"{layer}.running_var": variance for layer, variance in self.variance.items()}

    @classmethod
    def from_buffers(
        cls,
        buffers: Mapping[str, NDArray[np.float32]],
        examples: int,
        aliases: Mapping[str, str] | None = None,
    ) -> Self:
        """Read them back; the inverse of :meth:`buffers`."""
        means, variances = (
            {name.removesuffix(suffix): array for name, array in buffers.items() if name.endswith(suffix)}
            for suffix in (".running_mean", ".running_var")
        )
        return cls(means, variances, examples, aliases or {})

    def applied_to(self, state: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Return a state dict with these statistics in place of its own, under all their names.

        Raises
        ------
        DataError
            If they are of another model.
        """
        buffers = self.buffers()
        for name, array in buffers.items():
            if name not in state or state[name].shape != array.shape or not np.isfinite(array).all():
                raise DataError(f"BatchNorm statistics for {name} {array.shape} do not fit the model.")
        others = {name: buffers[each] for name, each in self.aliases.items() if name in state}
        return {**state, **buffers, **others}


def estimate(model: nn.Module, batches: Iterable[torch.Tensor]) -> BatchNormStatistics:
    """Estimate a model's BatchNorm statistics over input batches; the model gets them, too.

    As :func:`torch.optim.swa_utils.update_bn`, but with dropout off, as it is when the statistics are used.
    A layer that no batch reaches (of a branch that is only there in training) keeps those that it has, and
    is left out. The model is left in evaluation mode.

    Raises
    ------
    DataError
        If there is no batch.
    """
    by_name = batchnorm_layers(model)
    layers = list(by_name.values())
    momenta = [layer.momentum for layer in layers]
    before = {layer: {name: each.clone() for name, each in layer.named_buffers()} for layer in layers}
    device = next(model.parameters()).device
    examples = 0
    model.eval()
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None  # PyTorch's way of saying: the plain average over all batches
        layer.train()
    try:
        with torch.no_grad():
            for batch in batches:
                model(batch.to(device))
                examples += len(batch)
    finally:
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum
        model.eval()
    if examples == 0:
        raise DataError("BatchNorm cannot be re-estimated without examples: give at least one batch.")
    active = {name: layer for name, layer in by_name.items() if layer.num_batches_tracked != 0}
    _put_back([layer for name, layer in by_name.items() if name not in active], before, active.values())
    by_name = active
    statistics = BatchNormStatistics(
        {name: _array(layer.running_mean) for name, layer in by_name.items()},
        {name: _array(layer.running_var) for name, layer in by_name.items()},
        examples,
    )
    return replace(statistics, aliases=other_names(first_names(model), statistics.buffers()))


def _put_back(
    layers: Iterable[_BatchNorm],
    before: Mapping[_BatchNorm, Mapping[str, torch.Tensor]],
    others: Iterable[_BatchNorm],
) -> None:
    """Give layers the buffers that they had before, but not those that others have, too."""
    shared = {memory_of(each) for layer in others for each in layer.buffers()}
    for layer in layers:
        for name, each in layer.named_buffers():
            if memory_of(each) not in shared:
                each.copy_(before[layer][name])


def pool(estimates: Sequence[BatchNormStatistics]) -> BatchNormStatistics:
    """Return the statistics over the union of the examples of several estimates.

    The law of total variance: the mean of the variances plus the variance of the means, each weighted
    by its number of examples.

    Raises
    ------
    DataError
        If there is none, or they are of different models.
    """
    if not estimates or any(each.mean.keys() != estimates[0].mean.keys() for each in estimates):
        raise DataError("BatchNorm statistics can be pooled of one model, from at least one estimate.")
    total = sum(each.examples for each in estimates)
    means: dict[str, NDArray[np.float32]] = {}
    variances: dict[str, NDArray[np.float32]] = {}
    for name in estimates[0].mean:
        mean = sum(each.examples / total * each.mean[name].astype(np.float64) for each in estimates)
        spread = sum(
            each.examples
            / total
            * (each.variance[name].astype(np.float64) + np.square(each.mean[name] - mean))
            for each in estimates
        )
        means[name] = np.asarray(mean, dtype=np.float32)
        variances[name] = np.asarray(spread, dtype=np.float32)
    return BatchNormStatistics(means, variances, total, estimates[0].aliases)


def _array(buffer: torch.Tensor | None) -> NDArray[np.float32]:
    assert buffer is not None  # the layer tracks running statistics
    return buffer.cpu().numpy().astype(np.float32)
