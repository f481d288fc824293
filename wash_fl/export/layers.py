"""The layers of a graph that onnxruntime has optimized: with the names that their modules have in PyTorch."""

import re
from collections.abc import Iterable
from typing import Final

import onnx

WEIGHT, BIAS = ".weight", ".bias"
# What onnxruntime's optimizer puts around the names of weights into which it has folded a BatchNorm.
_FOLDED: Final = re.compile(r"^(ConvBnFusion_(BN_B|W)_)+|_token_\d+$")


def named(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Return a graph in which weights have their own names again, and operators that of their module.

    An operator without a module of its own has the name of the one before it, ``layer1.0.conv1/Add``. Where a
    name is taken, by another call of the same module, it is followed by a number: ``conv/2``.
    """
    _name_weights(proto.graph)
    _name_operators(proto.graph)
    return proto


def _name_weights(graph: onnx.GraphProto) -> None:
    used_names = {each.name for each in graph.initializer}
    names = {}
    for initializer in graph.initializer:
        name = _FOLDED.sub("", initializer.name)
        # A module that is called twice has its weights twice if a BatchNorm follows only one of the calls.
        if name not in used_names:
            names[initializer.name] = initializer.name = name
            used_names.add(name)
    for node in graph.node:
        for place, name in enumerate(node.input):
            node.input[place] = names.get(name, name)


def _name_operators(graph: onnx.GraphProto) -> None:
    biased = _biased(graph)
    used_names: set[str] = set()
    module = "input"
    for node in graph.node:
        own = _module(node.input, WEIGHT) or biased.get(node.output[0], "")
        module = own or _module(node.input, BIAS) or module
        node.name = _free(own or f"{module}/{node.op_type}", used_names)
        used_names.add(node.name)


def _biased(graph: onnx.GraphProto) -> dict[str, str]:
    """Return whose bias is added to which products: their own weight was transposed, and has no name."""
    products = {node.output[0] for node in graph.node if node.op_type == "MatMul"}
    return {
        name: _module(node.input, BIAS)
        for node in graph.node
        if node.op_type == "Add"
        for name in node.input
        if name in products
    }


def _module(inputs: Iterable[str], part: str) -> str:
    names = (_FOLDED.sub("", name) for name in inputs)
    return next((name for name in names if name.endswith(part)), "").removesuffix(part)


def _free(name: str, used_names: set[str]) -> str:
    count, free = 1, name
    while free in used_names:
        count += 1
        free = f"{name}/{count}"
    return free
