"""Who learns from which examples, and how examples are fetched."""

import warnings
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import IterableDataset, Subset, TensorDataset, default_collate

from wash_fl.config import RunConfig, TaskConfig
from wash_fl.core import philox
from wash_fl.errors import ConfigError, DataError
from wash_fl.tasks.task import Examples, Task, import_extra

Indices = NDArray[np.int64]


@lru_cache(maxsize=8)
def member_examples(task: Task, config: RunConfig, member: int) -> Examples:
    """Return the training examples of one member.

    They are what ``task.member_data`` gives, if the task has it; otherwise the first ``train-examples`` of
    ``task.train_data`` in a seeded order, divided as ``division`` says: ``shared`` (each member all of
    them), ``iid`` or ``dirichlet`` (flwr-datasets' partitioners; Hsu et al., 2019, arXiv 1909.06335).
    With ``member_data``, ``train-examples`` limits each member on its own. They are read once per process.

    Parameters
    ----------
    task : Task
        Whose examples.
    config : RunConfig
        The options ``division``, ``alpha``, ``train-examples``, ``members`` and ``seed`` count.
    member : int
        Index of the member, 0 to members - 1.

    Returns
    -------
    Dataset
        Map-style; a :class:`~torch.utils.data.TensorDataset` if the task's is one.

    Raises
    ------
    ConfigError
        If there is no such member.
    DataError
        If the task's data does not fit it, a member would have no example, or flwr-datasets is missing.
    """
    members, seed = config.training.members, config.training.seed
    if not 0 <= member < members:
        raise ConfigError(
            f"there is no member {member}: members = {members}, so they are 0 to {members - 1}. "
            "Raise members, or give this client a lower index."
        )
    refuse_division(task, config)
    limit = config.task.train_examples
    if task.member_data is not None:
        own = task.member_data(member, members)
        return _limited(_checked(own, task, f"member_data({member}, {members})"), limit, seed, index=0)
    examples = _limited(_checked(task.train_data(), task, "train_data()"), limit, seed, index=0)
    if config.task.division == "shared":
        return examples
    return select(examples, _shard(labels_of(examples), config, member))


def refuse_division(task: Task, config: RunConfig) -> None:
    """Raise :class:`ConfigError` if the options ask to divide data that is divided already."""
    asked = config.task.division
    if task.member_data is not None and asked != TaskConfig().division:
        raise ConfigError(
            f"division = {asked!r} does not go with the task {task.name!r}, whose members have data of their "
            "own (member_data): leave it out."
        )


def test_examples(task: Task, config: RunConfig) -> Examples:
    """Return the test examples, at most ``test-examples`` of them: the same for every member.

    Raises
    ------
    DataError
        If the task's data does not fit it.
    """
    examples = _checked(task.test_data(), task, "test_data()")
    return _limited(examples, config.task.test_examples, config.training.seed, index=1)


def stratified_order(labels: NDArray[Any], seed: int, purpose: str, *, index: int = 0) -> Indices:
    """Return a random order of examples whose every beginning has each class at nearly its share.

    Parameters
    ----------
    labels : ndarray of int, shape (examples,)
        The class of each example.
    seed, purpose, index
        The stream of :mod:`wash_fl.core.philox` to draw from.

    Returns
    -------
    ndarray of int64, shape (examples,)
        A permutation of the examples' indices.
    """
    shuffled = philox.order(seed, purpose, len(labels), index=index)
    position = np.empty(len(labels), dtype=np.float64)
    for label in np.unique(labels):
        own = np.flatnonzero(labels[shuffled] == label)
        position[own] = (np.arange(len(own)) + 0.5) / len(own)
    chosen: Indices = shuffled[np.argsort(position, kind="stable")]
    return chosen


def select(dataset: Examples, indices: Indices) -> Examples:
    """Return some of the examples, in the order given; a TensorDataset stays one."""
    if isinstance(dataset, TensorDataset):
        return TensorDataset(*fetch(dataset, indices))
    return Subset(dataset, indices.tolist())


def labels_of(dataset: Examples) -> NDArray[np.int64]:
    """Return the class index of every example, int64 of shape (examples,).

    One look for a TensorDataset; any other data set is read from end to end.

    Raises
    ------
    DataError
        If the examples are not pairs, or their targets are not integers.
    """
    if isinstance(dataset, TensorDataset):
        labels: NDArray[Any] = _pair(dataset.tensors)[1].numpy(force=True)
    else:
        labels = np.array([np.asarray(_pair(dataset[i])[1]) for i in range(_length(dataset))])
    if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
        raise DataError(
            f"targets must be class indices, one integer for each example, and these are {labels.dtype} of "
            f"shape {labels.shape[1:]}: give (input, class index) pairs."
        )
    return labels.astype(np.int64)


def tensors_of(dataset: Examples) -> tuple[torch.Tensor, torch.Tensor]:
    """Return a whole data set as two tensors, of shapes (examples, *input shape) and (examples,).

    Raises
    ------
    DataError
        As :func:`fetch` does.
    """
    if isinstance(dataset, TensorDataset):
        return _pair(dataset.tensors)
    return fetch(dataset, range(_length(dataset)))


def fetch(dataset: Examples, indices: Iterable[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return some examples as two tensors: one gather for a TensorDataset, collated items otherwise.

    Parameters
    ----------
    dataset : Dataset
        Map-style, of (input, target) pairs.
    indices : iterable of int
        Which examples: an int64 array, say.

    Raises
    ------
    DataError
        If the examples are not pairs, or cannot be stacked into tensors.
    """
    if isinstance(dataset, TensorDataset):
        inputs, targets = _pair(dataset.tensors)
        chosen = torch.as_tensor(indices, dtype=torch.int64)
        return inputs[chosen], targets[chosen]
    wanted = [int(i) for i in indices]
    items = dataset.__getitems__(wanted) if hasattr(dataset, "__getitems__") else [dataset[i] for i in wanted]
    _pair(items[0])
    try:
        inputs, targets = default_collate(items)
    except (TypeError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise DataError(
            f"examples do not stack into tensors ({reason}): give tensors of one shape."
        ) from error
    return inputs, targets


def _limited(dataset: Examples, limit: int, seed: int, *, index: int) -> Examples:
    if not 0 < limit < _length(dataset):
        return dataset
    return select(dataset, stratified_order(labels_of(dataset), seed, "subset", index=index)[:limit])


def _shard(labels: NDArray[np.int64], config: RunConfig, member: int) -> Indices:
    members, seed, alpha = config.training.members, config.training.seed, config.task.alpha
    division = config.task.division
    if members > len(labels):
        raise DataError(
            f"{len(labels)} examples cannot be divided among {members} members: lower members or raise "
            "train-examples."
        )
    hugging_face = import_extra("datasets", f"division = {division!r}")
    partitioners = import_extra("flwr_datasets.partitioner", f"division = {division!r}")
    # IidPartitioner cuts the rows as they come: the shuffle is ours.
    order = philox.order(seed, "division", len(labels))
    rows = hugging_face.Dataset.from_dict({"label": labels[order], "index": order})
    if division == "iid":
        partitioner = partitioners.IidPartitioner(members)
    else:
        seed32 = philox.seed_of(seed, "division", index=1) % 2**32
        partitioner = partitioners.DirichletPartitioner(
            members, partition_by="label", alpha=alpha, min_partition_size=1, seed=seed32
        )
    partitioner.dataset = rows
    try:
        # It warns at every retry, and gives up after ten with an error of its own.
        with warnings.catch_warnings(action="ignore"):
            shard = partitioner.load_partition(member)
    except ValueError as error:
        raise DataError(
            f"a member has no example: division = {division!r} of {len(labels)} examples among {members} "
            f"members with alpha = {alpha:g}; use fewer members or a larger alpha."
        ) from error
    return np.asarray(shard.with_format("numpy")["index"][:], dtype=np.int64)


def _checked(dataset: Examples, task: Task, source: str) -> Examples:
    """Return the data set, if its first example is what the task says."""
    if _length(dataset) == 0:
        raise DataError(f"{source} of the task {task.name!r} is empty: it needs at least one example.")
    shape = tuple(np.shape(_pair(dataset[0])[0]))
    if shape != task.input_shape:
        raise DataError(
            f"{source} of the task {task.name!r} has inputs of shape {shape}, and its INPUT_SHAPE is "
            f"{task.input_shape}: change one of them."
        )
    return dataset


def _length(dataset: Examples) -> int:
    if isinstance(dataset, IterableDataset) or not hasattr(dataset, "__len__"):
        raise DataError(
            f"a {type(dataset).__name__} is not a map-style data set: it needs __len__ and __getitem__."
        )
    return len(dataset)


def _pair(example: Any) -> tuple[Any, Any]:
    if not isinstance(example, tuple | list) or len(example) != 2:
        given = (
            f"{len(example)} parts" if isinstance(example, tuple | list) else f"a {type(example).__name__}"
        )
        raise DataError(f"an example must be an (input, class index) pair, and here it is {given}.")
    return example[0], example[1]
