"""The methods that are compared, each in a small file of its own behind one interface."""

from collections.abc import Mapping
from typing import Final

from wash_fl.lab.compare.methods.dart import DART
from wash_fl.lab.compare.methods.fedavg import FEDAVG
from wash_fl.lab.compare.methods.fedmr import FEDMR
from wash_fl.lab.compare.methods.isolated import GREEDY_SOUP, ISOLATED
from wash_fl.lab.compare.methods.method import Method
from wash_fl.lab.compare.methods.papa import PAPA, PAPA_ALL
from wash_fl.lab.compare.methods.wash import SPARTA, WASH, WASH_OPT

__all__ = ["METHODS", "Method"]

METHODS: Final[Mapping[str, Method]] = {
    method.name: method
    for method in (
        ISOLATED,
        FEDAVG,
        PAPA,
        PAPA_ALL,
        DART,
        SPARTA,
        FEDMR,
        GREEDY_SOUP,
        WASH,
        WASH_OPT,
    )
}
