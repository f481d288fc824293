"""What is mended in the exporter's graph before it is written. No weight is touched."""

from collections.abc import Iterator
from typing import Final

import onnx
from google.protobuf.message import Message

_BIASED: Final = ("Conv", "ConvTranspose")
_SAME_VALUES: Final = ("Expand", "Cast", "CastLike", "Identity")


def forget_sources(message: Message) -> None:
    """Clear the notes in a model's protobuf: stack traces with the paths and user names of this machine."""
    for field, value in message.ListFields():
        if field.name in ("metadata_props", "doc_string"):
            message.ClearField(field.name)
        elif field.message_type is not None:
            for child in [value] if isinstance(value, Message) else value:
                forget_sources(child)


def drop_zero_biases(graph: onnx.GraphProto) -> None:
    """Leave out the bias of convolutions that have none in PyTorch.

    torch's exporter gives them zeros, computed at run time by an Expand. onnxruntime does not fold that
    node, so it cannot fuse the BatchNorm behind the convolution either, and ResNet-18 takes twice as long.
    torch's own optimizer would mend this, but it writes fused weights in place of the model's.
    """
    producers = {name: node for node in graph.node for name in node.output}
    for node in graph.node:
        if node.op_type in _BIASED and len(node.input) == 3 and _is_zero(node.input[2], producers):
            del node.input[2]
    _drop_unused(graph)


def _is_zero(name: str, producers: dict[str, onnx.NodeProto]) -> bool:
    node = producers.get(name)
    while node is not None and node.op_type in _SAME_VALUES:
        node = producers.get(node.input[0])
    if node is None or node.op_type != "Constant":
        return False
    value = onnx.helper.get_attribute_value(node.attribute[0])
    if isinstance(value, onnx.TensorProto):
        return not onnx.numpy_helper.to_array(value).any()
    return value in (0.0, [0.0])


def _drop_unused(graph: onnx.GraphProto) -> None:
    before = -1
    while before != len(graph.node):
        before = len(graph.node)
        used = {port.name for port in graph.output} | {name for node in graph.node for name in _names(node)}
        for index in reversed(range(before)):
            if used.isdisjoint(graph.node[index].output):
                del graph.node[index]
    values = {name for node in graph.node for name in node.output}
    for index in reversed(range(len(graph.value_info))):
        if graph.value_info[index].name not in values:
            del graph.value_info[index]


def _names(node: onnx.NodeProto) -> Iterator[str]:
    yield from node.input
    for attribute in node.attribute:
        # The body of an If or a Loop uses values of the graph around it by name.
        for body in [attribute.g, *attribute.graphs]:
            for inner in body.node:
                yield from _names(inner)
            yield from (port.name for port in body.output)
