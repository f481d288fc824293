"""A device with the extra ``infer`` alone: the real command line, without torch, Flower or ONNX."""

import json
import os
import re
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions, requires
from pathlib import Path

import numpy as np
import pytest
from packaging.requirements import Requirement
from PIL import Image

from wash_fl.export.metadata import ModelCard
from wash_fl.export.normalization import Normalization
from wash_fl.extras import install_hint

ROOT = Path(__file__).resolve().parent.parent
CARD = ModelCard(
    classes=("up", "down"), input_shape=(1, 2, 3), normalization=Normalization(mean=(0.5,), std=(0.25,))
)


def canonical(requirement: str) -> str:
    """Return a package's name as it is compared, without versions and extras."""
    return re.sub(r"[-_.]+", "-", re.split(r"[^\w.-]", requirement.strip(), maxsplit=1)[0]).lower()


def needed_here(requirement: str) -> bool:
    """Return whether a package's requirement is one without any extra, on a system like this."""
    marker = Requirement(requirement).marker
    return marker is None or marker.evaluate({"extra": ""})


def brought_by_infer() -> set[str]:
    """Return the packages that the base and the extra bring, and those that these bring."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    waiting = [*project["dependencies"], *project["optional-dependencies"]["infer"]]
    modules: set[str] = set()
    while waiting:
        name = canonical(waiting.pop())
        if name not in modules:
            modules.add(name)
            waiting += [each for each in requires(name) or [] if needed_here(each)]
    return modules


@pytest.fixture(scope="module")
def allowed() -> set[str]:
    packages = brought_by_infer()
    return {"wash_fl"} | {
        module
        for module, distributions in packages_distributions().items()
        if packages & {canonical(each) for each in distributions}
    }


@pytest.fixture
def device(allowed, tmp_path, write_model):
    """Give ``device("predict", ...)``: the command line in a process of its own, in a folder with a model."""
    write_model(tmp_path / "model.onnx", CARD)
    Image.new("L", (3, 2), 77).save(tmp_path / "image.png")
    np.save(tmp_path / "array.npy", np.full((1, 2, 3), (77 / 255 - 0.5) / 0.25, np.float32))

    def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
        path = os.pathsep.join([str(ROOT / "tests" / "only_extra"), str(ROOT)])
        return subprocess.run(
            [sys.executable, "-m", "wash_fl", *arguments],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": path, "WASH_FL_ONLY": ",".join(allowed), "COLUMNS": "80"},
            timeout=120,
            check=False,
        )

    return run


def test_the_extra_brings_neither_torch_nor_flower_nor_onnx(allowed):
    assert {"numpy", "onnxruntime", "PIL", "rich", "typer", "click"} <= allowed
    assert not {"torch", "flwr", "onnx", "onnxscript", "grpc", "ray", "sklearn", "matplotlib"} & allowed


def test_images_and_arrays_are_classified(device):
    process = device("predict", "model.onnx", "image.png", "array.npy", "--json")
    assert (process.returncode, process.stderr) == (0, "")
    from_image, from_array = json.loads(process.stdout)["predictions"]
    assert from_image["label"] == from_array["label"]
    assert from_image["probability"] == pytest.approx(from_array["probability"], rel=1e-5)
    assert "image.png" in device("predict", "model.onnx", "image.png").stdout


def test_inference_is_measured(device):
    process = device(
        *("bench", "inference", "model.onnx", "model.onnx", "--batch", "1,3"),
        *("--repeats", "4", "--warm-up", "1", "--input", "image.png", "--json"),
    )
    assert (process.returncode, process.stderr) == (0, "")
    figures = json.loads(process.stdout)
    assert len(figures["models"]) == 2
    assert figures["models"][1]["batches"]["3"]["p99_ms"] > 0
    assert (
        figures["models"][0]["start"]["peak_bytes"]["3"] > figures["models"][0]["start"]["bytes_before_load"]
    )


def test_every_help_is_there(device):
    for command in ([], ["predict"], ["bench"], ["bench", "inference"], ["simulate"]):
        process = device(*command, "--help")
        assert (process.returncode, process.stderr) == (0, ""), command


@pytest.mark.parametrize(
    ("command", "extra"),
    [
        ("simulate", "simulation"),
        ("evaluate run", "server"),
        ("fleet key device-1", "client"),
        ("bench wire", "client"),
        ("bench exchange", "simulation"),
    ],
)
def test_what_needs_more_names_the_one_extra_that_brings_all_of_it(device, command, extra):
    process = device(*command.split())
    assert (process.returncode, process.stdout, len(process.stderr.splitlines())) == (1, "", 1), (
        process.stderr
    )
    assert process.stderr.startswith("error: ") and process.stderr.endswith(f": {install_hint(extra)}.\n")


def test_a_device_is_examined_and_told_what_it_needs_to_train(device):
    process = device("doctor")
    assert process.returncode == 1 and "Traceback" not in process.stderr
    assert install_hint("client") in " ".join(process.stdout.split())
