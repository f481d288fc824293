"""Missing and wrong packages are named, with how to install them."""

import tomllib
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest

from wash_fl.doctor import software
from wash_fl.extras import install_hint

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

REQUIRED = [
    "numpy>=2.0",
    "flwr<2,>=1.41; extra == 'client'",
    'torch>=2.10; extra == "client"',
    "flwr[simulation]<2; extra == 'simulation'",
]


@pytest.fixture
def installed(monkeypatch) -> dict[str, str]:
    """What there is, by name; a test changes it."""
    there = {"wash-fl": "0.1.0", "numpy": "2.1.0", "flwr": "1.42.0", "torch": "2.10.0"}

    def look_up(name: str) -> str:
        if name not in there:
            raise PackageNotFoundError(name)
        return there[name]

    monkeypatch.setattr(software, "version", look_up)
    monkeypatch.setattr(software, "requires", lambda name: REQUIRED if look_up(name) else None)
    return there


def test_what_a_client_needs_is_what_the_project_says(monkeypatch):
    extra = PROJECT["optional-dependencies"]["client"]
    lines = [*PROJECT["dependencies"], *(f'{each}; extra == "client"' for each in extra)]
    monkeypatch.setattr(software, "requires", lambda name: [*lines, 'ray==2.55.1; extra == "simulation"'])
    requirements = list(software._needed_by_a_client())
    assert [name + allowed for name, allowed in requirements] == [*PROJECT["dependencies"], *extra]


def test_all_that_is_needed_is_there(installed):
    (finding,) = software.packages()
    assert finding.level == "ok"
    assert "wash-fl 0.1.0" in finding.detail and "torch 2.10.0" in finding.detail


def test_here_they_are_fit():
    assert version("torch")
    assert [each.level for each in software.packages()] == ["ok"]


def test_without_torch_and_flower_the_extra_is_named_and_inference_is_said_to_work(installed):
    del installed["torch"], installed["flwr"]
    (finding,) = software.packages()
    assert finding.level == "problem"
    assert finding.detail == "missing: flwr, torch"
    assert install_hint("client") in finding.advice and "infer" not in finding.advice
    installed["onnxruntime"] = "1.20"
    (finding,) = software.packages()
    assert "it can infer without" in finding.advice


def test_a_version_that_is_not_allowed_is_a_problem(installed):
    installed["flwr"] = "1.30.0"
    (finding,) = software.packages()
    assert finding.level == "problem"
    assert "flwr 1.30.0 (needed: <2,>=1.41)" in finding.detail


def test_missing_and_wrong_are_both_said(installed):
    installed["flwr"] = "2.0.0"
    del installed["numpy"]
    assert [each.name for each in software.packages()] == ["packages", "versions"]


def test_a_checkout_that_is_not_installed_is_no_crash(installed):
    del installed["wash-fl"]
    (finding,) = software.packages()
    assert finding.level == "warning"


def test_cuda_packages_without_a_gpu_are_a_warning(tmp_path):
    gpu = tmp_path / "gpu"
    names = ["torch", "nvidia-cublas", "nvidia-cudnn-cu13"]
    finding = software.torch_build(names, [str(gpu)])
    assert finding.level == "warning" and "2 packages" in finding.detail
    gpu.write_text("")
    assert software.torch_build(names, [str(gpu)]).level == "ok"
    assert software.torch_build(["torch"], [str(tmp_path / "none")]).level == "ok"
    assert software.torch_build(["numpy"], []) is None


def test_the_constraints_for_arm_leave_a_version_that_the_project_allows():
    from packaging.requirements import Requirement

    lines = [
        Requirement(line)
        for line in (ROOT / "clients" / "arm64.txt").read_text().splitlines()
        if line and not line.startswith("#")
    ]
    specifiers = {
        each.name: each.specifier
        for each in map(
            Requirement,
            [
                *PROJECT["optional-dependencies"]["client"],
                *(
                    line
                    for line in PROJECT["optional-dependencies"]["simulation"]
                    if line.startswith("torchvision")
                ),
            ],
        )
    }
    # The last pair without CUDA packages on Arm, and the first with them.
    for name, last, first in (("torch", "2.10.0", "2.11.0"), ("torchvision", "0.25.0", "0.26.0")):
        (line,) = [each for each in lines if each.name == name]
        assert line.specifier.contains(last) and specifiers[name].contains(last)
        assert not line.specifier.contains(first)
        assert line.marker is not None
        assert line.marker.evaluate({"platform_machine": "aarch64"})
        assert not line.marker.evaluate({"platform_machine": "x86_64"})
