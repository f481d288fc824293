"""The methods that are compared: each :class:`Method` that a file of this folder defines."""

import pkgutil
from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Final

from wash_fl.lab.compare.methods.method import Method

__all__ = ["METHODS", "Method"]

FIRST: Final = ("isolated", "fedavg")
"""What the others are looked at beside: the floor, and what their bytes are a part of."""


def _methods() -> Iterator[Method]:
    names = sorted(each.name for each in pkgutil.iter_modules(__path__))
    for name in names:
        module = import_module(f"{__name__}.{name}")
        yield from (each for each in vars(module).values() if isinstance(each, Method))


def _in_order() -> dict[str, Method]:
    methods: dict[str, Method] = {}
    for method in _methods():
        assert method.name not in methods, f"two methods are called {method.name}"
        methods[method.name] = method
    return {name: methods.pop(name) for name in FIRST} | methods


METHODS: Final[Mapping[str, Method]] = _in_order()
