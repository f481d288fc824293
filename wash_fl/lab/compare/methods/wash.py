"""WASH and its nearest relations: slices change places, or are averaged."""

from wash_fl.lab.compare.methods.method import Method, shuffled

WASH = Method("wash", "Fournier et al. 2024; slices between pairs, once per round", shuffled)
WASH_OPT = Method("wash-opt", "Fournier et al. 2024, WASH+Opt", shuffled, {"exchange-optimizer": True})
SPARTA = Method(
    "sparta",
    "Exo Labs 2025: random coordinates, everywhere equally probable, are averaged",
    shuffled,
    {"mix": "average", "topology": "all", "schedule": "constant"},
)
