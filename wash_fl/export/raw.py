"""A file that prepares raw values by itself: a device feeds a picture's bytes, or a sensor's readings."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from wash_fl.errors import ExportError
from wash_fl.export.images import as_bytes, is_picture
from wash_fl.export.inference import Predictor
from wash_fl.export.inputs import Inputs
from wash_fl.export.normalization import Normalization
from wash_fl.export.parity import Parity, compare
from wash_fl.export.proof import MOST_EXAMPLES, prove
from wash_fl.export.seal import sealed
from wash_fl.files import replacing

if TYPE_CHECKING:
    import onnx

INPUT: Final = "raw"


def export_raw(
    model: Path,
    path: Path,
    *,
    examples: NDArray[np.float32],
    tolerance: float = 1e-4,
    test_vectors: int = MOST_EXAMPLES,
) -> Parity:
    """Write a file like another one that takes raw inputs, unless it answers otherwise.

    Its input is ``raw``: uint8 of shape ``(batch, *card.input_shape)`` where inputs are pictures, readings in
    float32 elsewhere. What the card's normalization says comes first in its graph, and no weight is touched.
    It is compared with the file that it is made of, which is given the same inputs prepared already; that
    one's answers are in the test vectors of the new one.

    Parameters
    ----------
    model : pathlib.Path
        A file written by :func:`wash_fl.export.export_onnx`, whose card has a normalization.
    path : pathlib.Path
        Where the new file goes.
    examples : ndarray of float32, shape (n, *card.input_shape)
        Inputs that are prepared already. Pictures of them are made of whole bytes to compare the two files.
    tolerance : float
        The largest difference between two outputs that is accepted.
    test_vectors : int
        How many of the inputs the file carries at most, 0 to 8.

    Raises
    ------
    ExportError
        If the file takes raw inputs already, its card does not say in numbers how they are prepared, or the
        answers differ.
    """
    import onnx

    predictor = Predictor(model)
    normalization = predictor.card.normalization
    if normalization is None or predictor.card.raw_inputs:
        raise ExportError(
            f"{model} cannot be given raw inputs: its card must have a normalization (NORMALIZATION in the "
            "task), and its own inputs be prepared already."
        )
    source = predictor.proof
    proto = onnx.load(model)
    prepend_preparation(proto.graph, normalization, predictor.card.input_shape)
    onnx.helper.set_model_props(proto, replace(predictor.card, raw_inputs=True).to_metadata())
    readings = normalization.undo(examples).astype(np.float32)
    raw: Inputs = readings
    if is_picture(predictor.card.input_shape):
        raw = as_bytes(readings)
        readings = raw.astype(np.float32) / np.float32(255)
    logits = predictor.predict(normalization.apply(readings)).logits
    versions = source.versions if source else {}
    prove(proto, raw, logits, tolerance=tolerance, versions=versions, most=test_vectors)
    with replacing(path) as partial:
        partial.write_bytes(sealed(proto))
        onnx.checker.check_model(str(partial), full_check=True)
        parity = compare(Predictor(partial).predict(raw).logits, logits, tolerance)
        parity.raise_if_refused()
    return parity


def prepend_preparation(
    graph: "onnx.GraphProto", normalization: Normalization, input_shape: tuple[int, ...]
) -> None:
    """Let a graph begin with its inputs' preparation: what was its input is what that gives."""
    from onnx import TensorProto, helper, numpy_helper

    prepared = graph.input[0].name
    graph.input[0].name = last = INPUT
    along = (-1,) + (1,) * (len(input_shape) - 1)
    steps = [("Sub", np.reshape(normalization.mean, along)), ("Div", np.reshape(normalization.std, along))]
    nodes = []
    if is_picture(input_shape):
        graph.input[0].type.tensor_type.elem_type = TensorProto.UINT8
        nodes.append(helper.make_node("Cast", [last], ["raw_float"], to=TensorProto.FLOAT))
        last = "raw_float"
        steps.insert(0, ("Div", np.array(255)))
    for number, (operator, value) in enumerate(steps, 1):
        constant_name = f"raw_constant_{number}"
        output = prepared if number == len(steps) else f"raw_step_{number}"
        constant = numpy_helper.from_array(value.astype(np.float32))
        nodes.append(helper.make_node("Constant", [], [constant_name], value=constant))
        nodes.append(helper.make_node(operator, [last, constant_name], [output]))
        last = output
    for node in reversed(nodes):
        graph.node.insert(0, node)
