"""Writing a model as one ONNX file, after showing that it answers as PyTorch does."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from numpy.typing import NDArray
from torch import nn

from wash_fl.errors import ExportError
from wash_fl.export.exportable import exportable
from wash_fl.export.inference import Predictor
from wash_fl.export.metadata import INPUT_TYPES, LOGITS, PROBABILITIES, ModelCard
from wash_fl.export.parity import Parity, compare, refuse_tolerance
from wash_fl.export.pixels import refuse_other_pixels
from wash_fl.export.proof import MOST_EXAMPLES, prove
from wash_fl.export.reference import answers, are_probabilities, refuse_company
from wash_fl.export.replay import replay
from wash_fl.export.seal import sealed
from wash_fl.export.text import first_line
from wash_fl.extras import install_hint
from wash_fl.files import replacing

if TYPE_CHECKING:
    import onnx


def export_onnx(
    model: nn.Module,
    path: Path | str,
    *,
    card: ModelCard,
    examples: torch.Tensor,
    tolerance: float = 1e-4,
    test_vectors: int = MOST_EXAMPLES,
) -> Parity:
    """Write a model as one ONNX file, unless the file answers otherwise than the model.

    The file's input is ``input``, of the examples' type and of shape ``(batch, *card.input_shape)`` with any
    batch size; its output is ``logits``, of shape ``(batch, classes)``. Its initializers are the model's own
    parameters and buffers, bit for bit: BatchNorm is not fused into them (onnxruntime does that when it loads
    the file). Weights that a model computes at each call, as weight norm does, are stored as computed.

    PyTorch itself must answer an example alike each time, and alone as among others. The file is compared
    with PyTorch on the examples twice, one at a time and all at once. Some of the examples and PyTorch's
    answers go into the file (:mod:`wash_fl.export.proof`), and a hash of its bytes
    (:mod:`wash_fl.export.seal`).

    The file appears at ``path`` only after every check. One that is refused is kept beside it, as
    ``<name>.refused.onnx``, and what was at ``path`` before stays.

    Parameters
    ----------
    model : torch.nn.Module
        In evaluation mode, on any device. It is not changed: a copy on the CPU is exported.
    path : path-like
        Where the file goes, in a folder that exists.
    card : ModelCard
        What the file says about itself. ``input_type``, ``input_range`` and ``outputs`` are written as the
        examples and PyTorch's answers show them.
    examples : torch.Tensor, shape (n, *card.input_shape)
        Real inputs, prepared as ``card.preprocessing`` says: float32, or int64, int32 or uint8.
    tolerance : float
        The largest difference between two outputs that is accepted.
    test_vectors : int
        How many of the examples the file carries at most, 0 to 8: whoever has the file can read them.

    Returns
    -------
    Parity
        Of the two comparisons, the one with the larger difference.

    Raises
    ------
    ExportError
        If a submodule is in training mode; a parameter, a buffer or an output is not finite; answers depend
        on chance or on the rest of the batch; the examples are not what the card's normalization makes of
        pixels (:mod:`wash_fl.export.pixels`); the model
        cannot be exported or does not fit its card; an initializer is not the model's; outputs differ by
        more than the tolerance; or a top-1 answer differs and it is not a tie, that is PyTorch's own
        margin between the two answers is at least the tolerance.

    Examples
    --------
    >>> parity = export_onnx(model.eval(), "averaged.onnx", card=card, examples=images)  # doctest: +SKIP
    >>> parity.largest_difference  # doctest: +SKIP
    2.4e-07
    """
    path = Path(path)
    _require_packages()
    # Imported only now, so that a missing onnx is an error with a remedy.
    from wash_fl.export.translate import translate

    if not path.parent.is_dir():
        raise ExportError(f"there is no folder {path.parent} to write {path.name} to: make it first.")
    refuse_tolerance(tolerance)
    _refuse_training_mode(model)
    inputs = _inputs(examples, card)
    if card.normalization is not None:
        refuse_other_pixels(card.normalization, inputs.numpy())
    twin = exportable(model)
    weights = _weights(twin)
    reference = answers(twin, inputs, card)
    refuse_company(twin, inputs, reference, card, tolerance)
    card = replace(
        card,
        input_type=str(inputs.numpy().dtype),
        input_range=(float(inputs.min()), float(inputs.max())),
        outputs=PROBABILITIES if are_probabilities(twin, inputs, reference, card) else LOGITS,
    )
    proto, constants = translate(twin, inputs)
    for key, value in card.to_metadata().items():
        proto.metadata_props.add(key=key, value=value)
    versions = {"torch": torch.__version__}
    prove(proto, inputs.numpy(), reference, tolerance=tolerance, versions=versions, most=test_vectors)

    refused = path.with_name(f"{path.stem}.refused.onnx")
    try:
        with replacing(path) as partial:
            partial.write_bytes(sealed(proto))
            try:
                _check_graph(partial, constants | weights)
                parity = _check_answers(
                    partial, inputs.numpy(), reference, card, tolerance, proven=test_vectors > 0
                )
            except ExportError as error:
                partial.replace(refused)
                reason = str(error).replace(str(partial), str(refused))
                message = f"{path} is not written: {reason} The refused file is {refused}."
                raise ExportError(message) from error
    except OSError as error:
        raise ExportError(f"cannot write {path} ({error.strerror}): mend this and export again.") from error
    return parity


def _require_packages() -> None:
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ExportError(
            f"exporting needs the package {error.name}, which is missing: {install_hint('server')}."
        ) from error


def _refuse_training_mode(model: nn.Module) -> None:
    for name, module in model.named_modules():
        if module.training:
            what = f"its module {name!r} ({type(module).__name__})" if name else type(module).__name__
            raise ExportError(
                f"the model cannot be exported while {what} is in training mode, where Dropout and BatchNorm "
                "answer otherwise: call model.eval() first."
            )


def _weights(model: nn.Module) -> dict[str, torch.Tensor]:
    weights: dict[str, torch.Tensor] = {}
    for kind, names in (
        ("parameter", model.named_parameters(remove_duplicate=False)),
        ("buffer", model.named_buffers(remove_duplicate=False)),
    ):
        for name, tensor in names:
            weights[name] = tensor.detach().cpu()
            if _diverged(name, tensor):
                raise ExportError(
                    f"the {kind} {name!r} of the model holds NaN or infinity: training has diverged, lower "
                    "the learning rate or take an earlier round."
                )
    return weights


def _diverged(name: str, tensor: torch.Tensor) -> bool:
    """Whether training has made infinities or NaNs of a tensor; a mask may be made of infinities."""
    if tensor.requires_grad or name.rpartition(".")[2] in {"running_mean", "running_var"}:
        return not bool(torch.isfinite(tensor).all())
    return bool(torch.isnan(tensor).any())


def _inputs(examples: torch.Tensor, card: ModelCard) -> torch.Tensor:
    shape, kind = tuple(examples.shape), str(examples.dtype).removeprefix("torch.")
    # A card that says nothing of the type says float32, and that of the examples is recorded.
    allowed = INPUT_TYPES if card.input_type == "float32" else (card.input_type,)
    if card.normalization is not None:
        allowed = ("float32",)
    if kind not in allowed or shape[1:] != card.input_shape or not shape or shape[0] == 0:
        raise ExportError(
            f"the examples are {examples.dtype} of shape {shape}, not {' or '.join(allowed)} of shape "
            f"(n, {', '.join(map(str, card.input_shape))}): give inputs as the model was trained on."
        )
    if not torch.isfinite(examples).all():
        raise ExportError("the examples hold NaN or infinity: give real inputs, prepared as for training.")
    return examples.detach().cpu().contiguous()


def _check_graph(path: Path, allowed: Mapping[str, torch.Tensor]) -> None:
    """Refuse a file that is not valid ONNX, or whose initializers are not the tensors given, by name."""
    import onnx

    try:
        onnx.checker.check_model(str(path), full_check=True)
        proto = onnx.load(path)
    except Exception as error:  # the checker, shape inference and protobuf share no base class
        raise ExportError(f"{path} is not valid ONNX ({first_line(error)}).") from error
    for initializer in proto.graph.initializer:
        tensor = allowed.get(initializer.name)
        if tensor is None or not _same_bits(initializer, tensor):
            raise ExportError(
                f"the initializer {initializer.name!r} of {path} is not the model's: the exporter has "
                "changed or added a weight."
            )


def _same_bits(initializer: "onnx.TensorProto", tensor: torch.Tensor) -> bool:
    from onnx import numpy_helper

    array = numpy_helper.to_array(initializer)
    # Compared as bytes: -0.0 is not 0.0 here, and a dtype that numpy does not know is no matter.
    content = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
    return array.shape == tuple(tensor.shape) and array.tobytes() == content.tobytes()


def _check_answers(
    path: Path,
    inputs: NDArray[Any],
    reference: NDArray[Any],
    card: ModelCard,
    tolerance: float,
    *,
    proven: bool,
) -> Parity:
    # The very program that devices run, so that what is checked is what is used.
    predictor = Predictor(path)
    if predictor.card != card:
        raise ExportError(f"{path} gives another card than it was given: {predictor.card}.")
    parities = []
    for batch_size in (1, len(inputs)):
        parity = compare(predictor.predict(inputs, batch_size=batch_size).logits, reference, tolerance)
        parity.raise_if_refused()
        parities.append(parity)
    if proven and (replayed := replay(predictor)).problem:
        raise ExportError(replayed.message)
    return max(parities, key=lambda parity: parity.largest_difference)
