"""Who learns from which examples, and how examples are fetched."""

from collections.abc import Iterable
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, IterableDataset, Subset, TensorDataset, default_collate

from wash_fl.config import RunConfig, TaskConfig
from wash_fl.core import philox
from wash_fl.errors import ConfigError, DataError
from wash_fl.tasks import partition
from wash_fl.tasks.partition import Indices
from wash_fl.tasks.task import Examples, Task
from wash_fl.tasks.user_code import user_code


@lru_cache(maxsize=8)
def member_examples(task: Task, config: RunConfig, member: int) -> Examples:
    """Return the training examples of one member.

    They are what ``task.member_data`` gives, if the task has it; otherwise the first ``train-examples`` of
    ``task.train_data`` in a seeded order, divided as ``division`` says: ``shared`` (each member all of
    them), ``iid`` or ``dirichlet`` (:mod:`wash_fl.tasks.partition`).
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
        If the task's data does not fit it, or a member would have no example.
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
        return _limited(checked(own, task, f"member_data({member}, {members})"), limit, seed, index=0)
    examples, shards = _divided(task, config)
    return select(examples, shards[member]) if shards else examples


@lru_cache(maxsize=2)
def _divided(task: Task, config: RunConfig) -> tuple[Examples, list[Indices]]:
    """Return what members learn from, and each one's part of it; no parts if each has all of it."""
    examples = checked(task.train_data(), task, "train_data()")
    examples = _limited(examples, config.task.train_examples, config.training.seed, index=0)
    return examples, [] if config.task.division == "shared" else _shards(labels_of(examples), config)


def refuse_division(task: Task, config: RunConfig) -> None:
    """Raise :class:`ConfigError` if the options ask to divide data that is divided already."""
    division = config.task.division
    if task.member_data is not None and division != TaskConfig().division:
        raise ConfigError(
            f"division = {division!r} does not go with the task {task.name!r}, whose members have data of "
            "their own (member_data): leave it out."
        )


def test_examples(task: Task, config: RunConfig) -> Examples:
    """Return the test examples, at most ``test-examples`` of them: the same for every member.

    Raises
    ------
    DataError
        If the task's data does not fit it.
    """
    examples = checked(task.test_data(), task, "test_data()")
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
    order: Indices = shuffled[np.argsort(position, kind="stable")]
    return order


def select(dataset: Examples, indices: Indices) -> Examples:
    """Return some of the examples, in the order given; a TensorDataset stays one."""
    if isinstance(dataset, TensorDataset):
        return TensorDataset(*fetch(dataset, indices))
    return Subset(dataset, indices.tolist())


def labels_of(dataset: Examples, what: str = "the data") -> NDArray[np.int64]:
    """Return the class index of every example, int64 of shape (examples,).

    One look for a TensorDataset; any other data set is read from end to end. Errors begin with ``what``.

    Raises
    ------
    DataError
        If the examples are not pairs, or their targets are not integers.
    """
    if isinstance(dataset, TensorDataset):
        labels: NDArray[Any] = pair(dataset.tensors)[1].numpy(force=True)
    else:
        labels = np.array([np.asarray(pair(dataset[i])[1]) for i in range(_length(dataset))])
    if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
        raise DataError(
            f"the targets of {what} must be class indices, one integer for each example, and these are "
            f"{labels.dtype} of shape {labels.shape[1:]}: {_way_to_indices(labels)}."
        )
    return labels.astype(np.int64)


def _way_to_indices(labels: NDArray[Any]) -> str:
    """Return what to do about targets that are no class indices."""
    if labels.dtype.kind not in "biuf":
        return "give (input, class index) pairs"
    if labels.ndim == 2 and labels.shape[1] == 1:
        return "take the second dimension away, with .squeeze(1)" + (
            "" if labels.dtype.kind in "iu" else ".long()"
        )
    if labels.ndim == 2:
        return "if they are one-hot, give .argmax(1); several classes of one example are not supported"
    return "give (input, class index) pairs" if labels.ndim > 2 else "convert them with .long()"


def tensors_of(dataset: Examples) -> tuple[torch.Tensor, torch.Tensor]:
    """Return a whole data set as two tensors, of shapes (examples, *input shape) and (examples,).

    Raises
    ------
    DataError
        As :func:`fetch` does.
    """
    if isinstance(dataset, TensorDataset):
        inputs, targets = pair(dataset.tensors)
        return inputs, _indices(targets)
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
        inputs, targets = pair(dataset.tensors)
        index = torch.as_tensor(indices, dtype=torch.int64)
        return inputs[index], _indices(targets[index])
    rows = [int(i) for i in indices]
    items = dataset.__getitems__(rows) if hasattr(dataset, "__getitems__") else [dataset[i] for i in rows]
    pair(items[0])
    try:
        inputs, targets = default_collate(items)
    except (TypeError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise DataError(
            f"examples do not stack into tensors ({reason}): give tensors of one shape."
        ) from error
    return inputs, _indices(targets)


def _indices(targets: Any) -> Any:
    """Return class indices of any integer type as int64, which is what losses take."""
    is_other = isinstance(targets, torch.Tensor) and targets.dtype in _OTHER_INTEGERS
    return targets.long() if is_other else targets


_OTHER_INTEGERS = (torch.int32, torch.int16, torch.int8, torch.uint8, torch.uint16, torch.uint32)


def _limited(dataset: Examples, limit: int, seed: int, *, index: int) -> Examples:
    if not 0 < limit < _length(dataset):
        return dataset
    return select(dataset, stratified_order(labels_of(dataset), seed, "subset", index=index)[:limit])


def _shards(labels: NDArray[np.int64], config: RunConfig) -> list[Indices]:
    members, seed, alpha = config.training.members, config.training.seed, config.task.alpha
    division = config.task.division
    if members > len(labels):
        raise DataError(
            f"{len(labels)} examples cannot be divided among {members} members: lower members or raise "
            "train-examples."
        )
    # The partitions are of the rows as they come: the shuffle is ours.
    order = philox.order(seed, "division", len(labels))
    if division == "iid":
        return [order[each] for each in partition.iid(len(labels), members)]
    seed32 = philox.seed_of(seed, "division", index=1) % 2**32
    shards = partition.dirichlet(labels[order], members, alpha, seed32)
    if shards is None:
        raise DataError(
            f"a member has no example: division = {division!r} of {len(labels)} examples among {members} "
            f"members with alpha = {alpha:g}; use fewer members or a larger alpha."
        )
    return [order[each] for each in shards]


def checked(dataset: Examples, task: Task, source: str) -> Examples:
    """Return a task's data set, if its first example is what the task says.

    Raises
    ------
    DataError
        If it is not, the data set is empty or of another kind, or it raises something; the message begins
        with the ``source``.
    """
    what = f"{source} of the task {task.name!r}"
    with user_code(what):
        if _length(dataset, what) == 0:
            raise DataError(f"{what} is empty: it needs at least one example.")
        example = dataset[0]
    shape = tuple(np.shape(pair(example, what)[0]))
    if shape != task.input_shape:
        channels_last = len(shape) == 3 and (shape[2], *shape[:2]) == task.input_shape
        remedy = "put the channels first, with .permute(2, 0, 1)" if channels_last else "change one of them"
        raise DataError(
            f"{what} has inputs of shape {shape}, and its INPUT_SHAPE is {task.input_shape}: {remedy}."
        )
    return dataset


def _length(dataset: Any, what: str = "it") -> int:
    is_stream = isinstance(dataset, IterableDataset)
    if is_stream or not (hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__")):
        remedy = "it needs __len__ and __getitem__"
        if dataset is None:
            remedy = "is a return missing?"
        elif isinstance(dataset, DataLoader):
            remedy = "give its .dataset; batches are made here"
        raise DataError(
            f"{what} cannot be used, for a {type(dataset).__name__} is not a map-style data set: {remedy}."
        )
    length: int = len(dataset)
    return length


def pair(example: Any, what: str = "the data") -> tuple[Any, Any]:
    """Return the input and the target of an example.

    Raises
    ------
    DataError
        If it is no pair; ``what`` says whose example it is.
    """
    if not isinstance(example, tuple | list) or len(example) != 2:
        kind = f"{len(example)} parts" if isinstance(example, tuple | list) else f"a {type(example).__name__}"
        raise DataError(
            f"an example of {what} must be an (input, class index) pair, and here it is {kind}: make a "
            "TensorDataset(inputs, targets) of two tensors, say."
        )
    return example[0], example[1]
