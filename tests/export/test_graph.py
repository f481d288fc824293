"""What is mended in the exporter's graph."""

import numpy as np
import onnx
import onnxruntime
import pytest

from wash_fl.export.graph import drop_zero_biases, forget_sources

HEAD = '<ir_version: 10, opset_import: ["" : 18]>'


def convolution(bias: str) -> onnx.ModelProto:
    """Return what torch's exporter writes for a convolution without a bias, or with the one given."""
    return onnx.parser.parse_model(
        f"""{HEAD}
        g (float[batch, 1, 4, 4] input, float[2, 1, 3, 3] weight) => (float[batch, 2, 2, 2] logits) {{
            size = Shape (weight)
            zero = Constant <value_ints = [0]> ()
            one = Constant <value_ints = [1]> ()
            count = Slice (size, zero, one)
            number = Constant <value = float {bias}> ()
            cast = CastLike (number, input)
            bias = Expand (cast, count)
            logits = Conv (input, weight, bias)
        }}"""
    )


def run(model: onnx.ModelProto) -> np.ndarray:
    rng = np.random.default_rng(0)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    feeds = {
        "input": rng.normal(size=(3, 1, 4, 4)).astype(np.float32),
        "weight": rng.normal(size=(2, 1, 3, 3)).astype(np.float32),
    }
    return session.run(None, feeds)[0]


def test_a_bias_of_zeros_goes_with_all_that_computed_it_and_the_answers_stay() -> None:
    model = convolution("{0.0}")
    before = run(model)
    drop_zero_biases(model.graph)
    assert [node.op_type for node in model.graph.node] == ["Conv"]
    assert list(model.graph.node[0].input) == ["input", "weight"]
    np.testing.assert_array_equal(run(model), before)


def test_a_bias_that_is_not_zero_stays() -> None:
    model = convolution("{0.5}")
    before = model.SerializeToString(deterministic=True)
    drop_zero_biases(model.graph)
    assert model.SerializeToString(deterministic=True) == before


def test_a_value_used_only_inside_a_branch_is_kept() -> None:
    model = onnx.parser.parse_model(
        f"""{HEAD}
        g (float[2] input, bool which) => (float[2] logits) {{
            twice = Add (input, input)
            unused = Neg (input)
            logits = If (which) <
                then_branch = yes () => (float[2] a) {{ a = Identity (twice) }},
                else_branch = no () => (float[2] b) {{ b = Identity (input) }}
            >
        }}"""
    )
    drop_zero_biases(model.graph)
    assert [node.op_type for node in model.graph.node] == ["Add", "If"]
    onnx.checker.check_model(model, full_check=True)


def test_notes_are_forgotten_at_every_depth_and_nothing_else() -> None:
    model = convolution("{0.0}")
    clean = model.SerializeToString(deterministic=True)
    for message in (model, model.graph, model.graph.node[0], model.graph.input[0], model.graph.output[0]):
        message.doc_string = "File /home/someone/model.py, line 3"
        message.metadata_props.add(key="stack_trace", value="/home/someone/model.py")
    model.graph.node[4].attribute[0].t.doc_string = "/home/someone"
    forget_sources(model)
    assert model.SerializeToString(deterministic=True) == clean


@pytest.mark.parametrize("bias", ["{0.0}", "{0.5}"])
def test_the_mended_graph_is_valid(bias: str) -> None:
    model = convolution(bias)
    drop_zero_biases(model.graph)
    onnx.checker.check_model(model, full_check=True)
