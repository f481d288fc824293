"""Predicting with an exported model: numpy and onnxruntime, no torch."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wash_fl.errors import ExportError
from wash_fl.export.inputs import Floats, Inputs, as_batch, load_inputs
from wash_fl.export.metadata import PROBABILITIES, ModelCard
from wash_fl.export.proof import Proof
from wash_fl.export.seal import check_seal
from wash_fl.export.text import first_line
from wash_fl.extras import install_hint

__all__ = ["Predictions", "Predictor", "evaluate_onnx", "load_inputs"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Predictions:
    """The answers to n examples.

    Parameters
    ----------
    logits : ndarray of float32, shape (n, classes)
        The model's outputs; not logits but the probabilities themselves if ``card.outputs`` says so.
    probabilities : ndarray of float32, shape (n, classes)
        The outputs where the model ends in softmax, their softmax otherwise; each row sums to 1. They are the
        model's own estimate if it was trained by cross entropy. Of scores of another kind, such as sigmoids
        for each class, the softmax keeps the order and means nothing more.
    labels : tuple of str, length n
        The name of the likeliest class of each example.
    """

    logits: Floats
    probabilities: Floats
    labels: tuple[str, ...]


class Predictor:
    """An ONNX file that answers.

    Parameters
    ----------
    path : path-like
        A file written by :func:`wash_fl.export.export_onnx`.
    threads : int
        Threads that onnxruntime may use.

    Attributes
    ----------
    path : pathlib.Path
        The file.
    card : ModelCard
        What the file says about itself.
    runtime : str
        The version of onnxruntime that answers.

    Raises
    ------
    ExportError
        If onnxruntime is not installed or cannot open the file, or the file is missing, not as it was written
        (:mod:`wash_fl.export.seal`), or not one of wash_fl's.

    Examples
    --------
    >>> predictor = Predictor("averaged.onnx")  # doctest: +SKIP
    >>> predictor.predict(load_inputs(["photo.png"], predictor.card)).labels  # doctest: +SKIP
    ('cat',)
    """

    def __init__(self, path: Path | str, threads: int = 1) -> None:
        self.path = Path(path)
        self._session, self.runtime = _open(self.path, threads)
        try:
            self.card = ModelCard.from_metadata(self._metadata())
        except ExportError as error:
            raise ExportError(f"{self.path}: {error}") from error
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        shapes = [tuple(port.shape[1:]) for port in (*inputs, *outputs)]
        allowed = [self.card.input_shape, (len(self.card.classes),)]
        if shapes != allowed:
            raise ExportError(
                f"{self.path}: its graph has inputs and outputs of shapes {shapes}, and its card says "
                f"{allowed}: the file is damaged or edited, export the model again."
            )
        kind = "tensor(float)" if self.card.input_dtype == np.float32 else f"tensor({self.card.input_dtype})"
        if inputs[0].type != kind:
            raise ExportError(
                f"{self.path}: its graph takes {inputs[0].type}, and its card says {kind}: the file is "
                "damaged or edited, export the model again."
            )
        self._input = inputs[0].name

    @property
    def proof(self) -> Proof | None:
        """The file's test vectors, for :func:`wash_fl.export.replay.replay`; unpacked anew each time.

        Raises
        ------
        ExportError
            If they are not as wash_fl writes them.
        """
        try:
            return Proof.from_metadata(self._metadata(), self.card)
        except ExportError as error:
            raise ExportError(f"{self.path}: {error}") from error

    def _metadata(self) -> Mapping[str, str]:
        metadata: Mapping[str, str] = self._session.get_modelmeta().custom_metadata_map
        return metadata

    def predict(self, inputs: NDArray[Any], *, batch_size: int = 64) -> Predictions:
        """Answer one example or many.

        Parameters
        ----------
        inputs : ndarray of ``card.input_dtype``, shape (n, *input_shape) or input_shape
            Inputs, prepared as ``card.preprocessing`` says, or raw if ``card.raw_inputs``. One example is a
            batch of one.
        batch_size : int
            Examples given to onnxruntime at a time; bounds the memory, not ``n``.

        Raises
        ------
        ExportError
            If the inputs are of another shape or dtype, are not finite, or are none.
        """
        if batch_size < 1:
            raise ExportError(f"batch_size = {batch_size} must be at least 1.")
        batch = as_batch(inputs, self.card, "the inputs")
        logits = np.concatenate(
            [self.logits(batch[start : start + batch_size]) for start in range(0, len(batch), batch_size)]
        )
        return Predictions(
            logits=logits,
            probabilities=logits if self.card.outputs == PROBABILITIES else _softmax(logits),
            labels=tuple(self.card.classes[index] for index in logits.argmax(axis=1)),
        )

    def logits(self, batch: Inputs) -> Floats:
        """Run the graph once on a batch that is known to be as :meth:`predict` asks for it.

        Parameters
        ----------
        batch : ndarray of ``card.input_dtype``, shape (n, *input_shape)

        Returns
        -------
        ndarray of float32, shape (n, classes)

        Raises
        ------
        ExportError
            If onnxruntime refuses the batch, or answers in another shape.
        """
        try:
            (logits,) = self._session.run(None, {self._input: np.ascontiguousarray(batch)})
        except Exception as error:  # onnxruntime's own errors share no base class
            raise ExportError(
                f"{self.path} cannot answer {len(batch)} examples ({first_line(error)}): "
                "export the model again."
            ) from error
        shape = (len(batch), len(self.card.classes))
        if logits.shape != shape:
            raise ExportError(
                f"{self.path} answers {len(batch)} examples in shape {logits.shape}, not {shape}: "
                "export the model again."
            )
        return np.asarray(logits, dtype=np.float32)


def evaluate_onnx(
    path: Path | str,
    inputs: NDArray[Any],
    targets: NDArray[Any],
    *,
    batch_size: int = 64,
    threads: int = 1,
) -> float:
    """Return the accuracy of a file: the fraction of examples whose top-1 answer is the target.

    Parameters
    ----------
    path : path-like
        A file written by :func:`wash_fl.export.export_onnx`.
    inputs : ndarray of ``card.input_dtype``, shape (n, *input_shape)
        Prepared as the file's card says.
    targets : ndarray of integers, shape (n,)
        Class indices.
    batch_size, threads : int
        As in :class:`Predictor`.

    Raises
    ------
    ExportError
        If the file, the inputs or the targets are not as above.
    """
    predictor = Predictor(path, threads)
    batch = as_batch(inputs, predictor.card, "the inputs")
    refuse_targets(targets, len(batch), len(predictor.card.classes))
    answers = predictor.predict(batch, batch_size=batch_size).logits.argmax(axis=1)
    return float(np.mean(answers == targets))


def refuse_targets(targets: NDArray[Any], examples: int, classes: int) -> None:
    """Raise :class:`ExportError` unless there is one class index for each example."""
    if targets.shape != (examples,) or targets.dtype.kind not in "iu":
        raise ExportError(
            f"the targets are {targets.dtype} of shape {targets.shape}, not integers of shape "
            f"({examples},): give one class index per example."
        )
    if targets.min() < 0 or targets.max() >= classes:
        raise ExportError(
            f"the targets run from {targets.min()} to {targets.max()}, but the model's class indices from 0 "
            f"to {classes - 1}: give targets in the order of its card's classes."
        )


def _open(path: Path, threads: int) -> tuple[Any, str]:
    """Return a session, and the version of the runtime that made it."""
    if threads < 1:
        raise ExportError(f"threads = {threads} must be at least 1.")
    try:
        import onnxruntime
    except ImportError as error:
        raise ExportError(
            f"onnxruntime is not installed, and predicting needs it: {install_hint('infer')}."
        ) from error
    if not path.is_file():
        raise ExportError(f"there is no file {path}: give the path of an ONNX file.")
    check_seal(path)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3  # errors only: on small boards it warns of GPUs they do not have
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's own errors share no base class
        raise ExportError(
            f"onnxruntime {onnxruntime.__version__} cannot open {path} ({first_line(error)}): install "
            "a newer one, or export the model again."
        ) from error
    return session, onnxruntime.__version__


def _softmax(logits: Floats) -> Floats:
    # The largest logit becomes 0, so that exp() cannot overflow.
    with np.errstate(invalid="ignore"):  # of an infinite logit it is NaN, which says enough
        powers = np.exp(logits - logits.max(axis=1, keepdims=True))
        normalised: Floats = powers / powers.sum(axis=1, keepdims=True)
    return normalised
