"""The rooms of the algorithm and the protocol can be used, and read, without torch, Flower or gRPC."""

import importlib
import pkgutil
import subprocess
import sys

import pytest

SCRIPT = """
import importlib, pkgutil, sys
room = importlib.import_module(sys.argv[1])
for each in pkgutil.walk_packages(room.__path__, room.__name__ + "."):
    importlib.import_module(each.name)
loaded = {name.partition(".")[0] for name in sys.modules}
heavy = {"torch", "flwr", "grpc", "scipy", "matplotlib", "onnx"} & loaded
rooms = {name for name in sys.modules if name.startswith("wash_fl.") and not name.startswith(room.__name__)}
print(sorted(heavy), sorted(each for each in rooms if not each.startswith("wash_fl.core")))
"""


@pytest.mark.parametrize(
    ("room", "below"),
    [
        ("wash_fl.core", ["wash_fl.config", "wash_fl.errors", "wash_fl.option"]),
        ("wash_fl.protocol", ["wash_fl.config", "wash_fl.errors", "wash_fl.option"]),
    ],
)
def test_importing_all_of_a_room_brings_in_no_torch_no_flower_and_no_grpc(room, below):
    done = subprocess.run([sys.executable, "-c", SCRIPT, room], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == f"[] {below}"
    assert len(list(pkgutil.walk_packages(importlib.import_module(room).__path__))) >= 10
