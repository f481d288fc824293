"""Whether the core and inference work on 64-bit Arm, shown without one: QEMU emulates a Cortex-A72 and -A76.

    python tools/arm64.py

Needs Debian or a system like it with the package qemu-user-static, the extra ``dev`` installed, and ten
minutes. Debian's Python for arm64 is unpacked into a temporary folder, and wheels for it beside it, in the
versions that are installed here. Nothing is installed or mounted, and nothing stays. (It was run as root.)

Then under emulation

- the tests of what needs no torch run: the core with its golden vectors, packets and journal, and inference;
- models that were trained and exported here answer their test inputs with ``wash-fl predict``.

Fails if a test does, or if an answer is another than here.
"""

import argparse
import dataclasses
import json
import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections import Counter
from collections.abc import Sequence
from importlib.metadata import distributions
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np

from wash_fl.export.inference import Predictor
from wash_fl.system.interrupts import interruptible

ROOT = Path(__file__).resolve().parent.parent
CPUS = {"cortex-a72": "0xd08", "cortex-a76": "0xd0b"}
"""QEMU's names of a Raspberry Pi 4's and 5's processors, and the part numbers that they have in /proc."""

TESTS = (
    "tests/core",
    *(f"tests/export/test_{name}.py" for name in ("answers", "graph", "images", "inference", "inputs")),
    *(
        f"tests/export/test_{name}.py"
        for name in ("metadata", "parity", "proof", "replay", "seal", "windows")
    ),
    "tests/cli/test_predict.py",
)
"""Of what needs no torch."""

TEST_PACKAGES = ("hypothesis", "onnx", "pytest", "pytest-timeout", "scipy")
DEBIAN_PACKAGES = ("python3-minimal", "libpython3-stdlib", "libstdc++6")
PLATFORMS = ("manylinux_2_28_aarch64", "manylinux_2_27_aarch64", "manylinux2014_aarch64")

MODELS = (("digits", "default"), ("digits", "mobilenet-v3-small"), ("smartwatch", "default"))
"""Tasks whose data is here without a download, and models."""

TOLERANCE = 1e-4
"""Largest accepted difference between two logits: that of an export to PyTorch."""

LOGITS = """
import sys
import numpy as np
from wash_fl.export.inference import Predictor
np.save(sys.argv[3], Predictor(sys.argv[1]).predict(np.load(sys.argv[2])).logits)
"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Answers:
    """How far a model's answers under emulation are from those here.

    Parameters
    ----------
    model, cpu : str
        Task and model; QEMU's name of the processor.
    examples : int
        Test inputs that were answered.
    largest_difference : float
        Between two logits.
    same_labels : int
        Examples with the same answer of ``wash-fl predict`` as here.
    """

    model: str
    cpu: str
    examples: int
    largest_difference: float
    same_labels: int


class Emulation:
    """A Python for arm64 with what the tests and inference need, in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._tree, self._site = folder / "tree", folder / "site"
        self._qemu = _program("qemu-aarch64-static", "qemu-user-static")
        self._unpack()
        self.version = self.python("-c", "import platform; print(platform.python_version())").strip()
        self._install()

    def python(self, *arguments: str, cpu: str = next(iter(CPUS))) -> str:
        """Run this Python on a processor and return what it printed; tests that fail are no error here."""
        # onnxruntime looks there for the processor, and crashes at what it finds on x86.
        (self._tree / "proc").mkdir(exist_ok=True)
        (self._tree / "proc" / "cpuinfo").write_text(cpuinfo(CPUS[cpu], os.cpu_count() or 1))
        environment = os.environ | {
            "QEMU_CPU": cpu,
            "PYTHONHOME": str(self._tree / "usr"),
            "PYTHONPATH": os.pathsep.join(map(str, (ROOT, self._site))),
            "PYTHONDONTWRITEBYTECODE": "1",
            "OMP_NUM_THREADS": "1",
        }
        return _run(self._launcher(), *arguments, environment=environment)

    def _launcher(self) -> str:
        """Return a program that is Python to itself too: tests start it again by ``sys.executable``."""
        path = self.folder / "python"
        python = self._tree / "usr" / "bin" / "python3"
        path.write_text(f'#!/bin/sh\nexec "{self._qemu}" -L "{self._tree}" -0 "$0" "{python}" "$@"\n')
        path.chmod(0o755)
        return str(path)

    def _unpack(self) -> None:
        apt, archives = self.folder / "apt", self.folder / "apt" / "cache" / "archives"
        for each in (self._tree, apt / "state" / "lists" / "partial", archives / "partial"):
            each.mkdir(parents=True)
        (apt / "status").touch()
        # The system's own sources, and none of its state.
        options = {
            "APT::Architecture": "arm64",
            "APT::Architectures": "arm64",
            "Dir::State": apt / "state",
            "Dir::State::status": apt / "status",
            "Dir::Cache": apt / "cache",
        }
        command = [_program("apt-get", "apt"), "-qq"]
        command += [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
        _run(*command, "update")
        _run(*command, "--yes", "--no-install-recommends", "--download-only", "install", *DEBIAN_PACKAGES)
        for archive in sorted(archives.glob("*.deb")):
            _run(_program("dpkg-deb", "dpkg"), "--extract", str(archive), str(self._tree))

    def _install(self) -> None:
        project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        here = {each.name: each.version for each in distributions() if each.name != "wash-fl"}
        constraints = self.folder / "constraints.txt"
        constraints.write_text("".join(f"{name}=={version}\n" for name, version in sorted(here.items())))
        _run(
            *(sys.executable, "-m", "pip", "install", "--quiet", "--target", str(self._site)),
            *("--only-binary", ":all:", "--python-version", self.version, "--implementation", "cp"),
            *(word for each in PLATFORMS for word in ("--platform", each)),
            *("--constraint", str(constraints)),
            *(*project["dependencies"], *project["optional-dependencies"]["infer"], *TEST_PACKAGES),
        )


def main() -> None:
    """Print what was found, as lines or as one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    as_json = parser.parse_args().json
    with interruptible(), tempfile.TemporaryDirectory(prefix="wash-arm64-") as folder:
        emulation = Emulation(Path(folder))
        answers = [each for task, model in MODELS for each in compare_answers(emulation, task, model)]
        tests = run_tests(emulation)
    if as_json:
        compared = [dataclasses.asdict(each) for each in answers]
        print(json.dumps({"python": emulation.version, "tests": tests, "answers": compared}))
    else:
        print(f"Python {emulation.version} for arm64, emulated")
        for room, counts in tests.items():
            print(f"{room}: {', '.join(f'{count} {what}' for what, count in counts.items())}")
        for each in answers:
            print(
                f"{each.model} on {each.cpu}: {each.same_labels} of {each.examples} answers as here, "
                f"largest difference between logits {each.largest_difference:.2g}"
            )
    problems = problems_of(tests, answers)
    for problem in problems:
        print(f"FAILED: {problem}", file=sys.stderr)
    sys.exit(1 if problems else 0)


def problems_of(tests: dict[str, dict[str, int]], answers: Sequence[Answers]) -> list[str]:
    """Return what is not as it must be."""
    problems = [
        f"{counts['failed']} tests of {room}" for room, counts in tests.items() if counts.get("failed")
    ]
    problems += [f"no test of {path} ran" for path in TESTS if not tests.get(room_of(path), {}).get("passed")]
    for each in answers:
        if each.same_labels < each.examples or not each.largest_difference <= TOLERANCE:
            problems.append(f"answers of {each.model} on {each.cpu} are others than here")
    return problems


def run_tests(emulation: Emulation) -> dict[str, dict[str, int]]:
    """Run the tests under emulation; return how many passed, failed and were skipped, by room."""
    report = emulation.folder / "tests.xml"
    said = emulation.python(
        *("-m", "pytest", "--quiet", "--timeout", "3600", "--junit-xml", str(report)),
        *("--basetemp", str(emulation.folder / "pytest"), *TESTS),
    )
    counts = count_tests(report.read_text(encoding="utf-8"))
    if any("failed" in each for each in counts.values()):
        print(said, file=sys.stderr)
    return counts


def count_tests(report: str) -> dict[str, dict[str, int]]:
    """Return how many passed, failed and were skipped of a JUnit report, by room."""
    counts: dict[str, Counter[str]] = {}
    for case in ElementTree.fromstring(report).iter("testcase"):
        kinds = {each.tag for each in case}
        what = "failed" if kinds & {"failure", "error"} else "skipped" if "skipped" in kinds else "passed"
        counts.setdefault(room_of(case.get("classname", "").replace(".", "/")), Counter())[what] += 1
    return {room: dict(each) for room, each in sorted(counts.items())}


def room_of(path: str) -> str:
    """Return the first two parts of a test's path: ``tests/core`` of all in that folder."""
    return "/".join(path.removesuffix(".py").split("/")[:2])


def compare_answers(emulation: Emulation, task: str, model: str) -> list[Answers]:
    """Export a model here, and have its test inputs answered here and on each processor."""
    path, inputs, found = (emulation.folder / f"{task}-{model}{end}" for end in (".onnx", ".npy", "-out.npy"))
    np.save(inputs, export_trained(task, model, path, emulation.folder))
    here = Predictor(path).predict(np.load(inputs))
    answers = []
    for cpu in CPUS:
        emulation.python("-c", LOGITS, str(path), str(inputs), str(found), cpu=cpu)
        said = emulation.python("-m", "wash_fl", "predict", str(path), str(inputs), "--json", cpu=cpu)
        labels = [each["label"] for each in json.loads(said)["predictions"]]
        answers.append(
            Answers(
                model=f"{task}, {model}",
                cpu=cpu,
                examples=len(here.labels),
                largest_difference=float(np.abs(np.load(found) - here.logits).max()),
                same_labels=sum(mine == theirs for mine, theirs in zip(here.labels, labels, strict=True)),
            )
        )
    return answers


def export_trained(task: str, model: str, path: Path, folder: Path) -> np.ndarray[Any, np.dtype[Any]]:
    """Train a model for a moment, export it, and return its test inputs."""
    import torch

    from wash_fl.config import RunConfig
    from wash_fl.consensus.finish import Evaluator
    from wash_fl.lab.compare.trainer import Trainer
    from wash_fl.runs.exporting import export_averaged
    from wash_fl.runs.folder import RunFolder
    from wash_fl.tasks.task import load_task

    torch.set_num_threads(1)
    options = {"task": task, "model": model, "members": 2, "rounds": 2, "run-dir": str(folder)}
    config = RunConfig.from_mapping(options)
    weights = Trainer(config).run().weights
    evaluator = Evaluator(load_task(task), config)
    export_averaged(RunFolder.create(config), evaluator, weights, path)
    inputs: np.ndarray[Any, np.dtype[Any]] = evaluator.inputs.numpy()
    return inputs


def cpuinfo(part: str, cores: int) -> str:
    """Return what /proc/cpuinfo says on a 64-bit Arm machine with cores of Arm's own design."""
    core = (
        "BogoMIPS\t: 108.00\nFeatures\t: fp asimd evtstrm crc32 cpuid\nCPU implementer\t: 0x41\n"
        f"CPU architecture: 8\nCPU variant\t: 0x0\nCPU part\t: {part}\nCPU revision\t: 3\n\n"
    )
    return "".join(f"processor\t: {number}\n{core}" for number in range(cores))


def _program(name: str, package: str) -> str:
    found = shutil.which(name)
    if found is None:
        sys.exit(f"there is no program {name}: on Debian, apt install {package}")
    return found


def _run(*command: str, environment: dict[str, str] | None = None) -> str:
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment, check=False)
    # pytest's status when tests fail; they are counted.
    if done.returncode != 0 and not (done.returncode == 1 and "pytest" in command):
        said = f"{done.stdout}\n{done.stderr}".strip()
        sys.exit(f"{' '.join(command[:6])} ... ended with status {done.returncode}:\n{said}")
    return done.stdout


if __name__ == "__main__":
    main()
