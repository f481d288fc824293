"""The room can be used, and read, without torch, Flower or gRPC."""

import pkgutil
import subprocess
import sys

import wash_fl.core

SCRIPT = """
import importlib, pkgutil, sys
import wash_fl.core
names = [each.name for each in pkgutil.walk_packages(wash_fl.core.__path__, "wash_fl.core.")]
for name in names:
    importlib.import_module(name)
loaded = {name.partition(".")[0] for name in sys.modules}
heavy = {"torch", "flwr", "grpc", "scipy", "matplotlib", "onnx"} & loaded
own = {name for name in sys.modules if name.startswith("wash_fl")} - {"wash_fl", "wash_fl.core", *names}
print(len(names), sorted(heavy), sorted(own))
"""


def test_importing_all_of_core_brings_in_no_torch_no_flower_and_no_grpc():
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    modules = len(list(pkgutil.walk_packages(wash_fl.core.__path__, "wash_fl.core.")))
    # Of wash_fl itself only what lies below: the options, the errors, and how a file is written.
    below = ["wash_fl.config", "wash_fl.errors", "wash_fl.files"]
    assert done.stdout.strip() == f"{modules} [] {below}"
    assert modules >= 12


def test_what_core_hands_out_is_there():
    assert all(hasattr(wash_fl.core, name) for name in wash_fl.core.__all__)
