"""The tests that run on an emulated Arm need no torch, and what is not as it must be there is a failure."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from tools.arm64 import CPUS, TESTS, Answers, count_tests, cpuinfo, problems_of, room_of

ROOT = Path(__file__).resolve().parents[2]

REPORT = """<testsuites><testsuite>
<testcase classname="tests.core.test_packet" name="one"/>
<testcase classname="tests.core.test_packet" name="two"><failure message="no"/></testcase>
<testcase classname="tests.core.test_mix" name="three"><error message="no"/></testcase>
<testcase classname="tests.core.test_mix" name="four"><skipped message="not here"/></testcase>
<testcase classname="tests.cli.test_predict" name="five"/>
</testsuite></testsuites>"""

ALL_PASSED = {room_of(path): {"passed": 7} for path in TESTS}
AS_HERE = Answers(
    model="digits, default", cpu="cortex-a72", examples=360, largest_difference=1e-6, same_labels=360
)

COLLECT = """
import sys
from importlib.abc import MetaPathFinder

class Refusing(MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name.partition(".")[0] in ("torch", "torchvision", "flwr", "grpc", "sklearn"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Refusing())
import pytest
sys.exit(pytest.main(["--collect-only", "--quiet", *sys.argv[1:]]))
"""


def test_the_tests_that_are_run_there_can_be_read_without_torch_and_flower():
    done = subprocess.run(
        [sys.executable, "-c", COLLECT, *TESTS], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert done.returncode == 0, done.stdout[-2000:]
    assert "test_golden.py" in done.stdout and "cli/test_predict.py" in done.stdout


def test_tests_are_counted_by_room_and_an_error_is_a_failure():
    assert count_tests(REPORT) == {
        "tests/core": {"passed": 1, "failed": 2, "skipped": 1},
        "tests/cli": {"passed": 1},
    }


@pytest.mark.parametrize(
    ("tests", "answers", "said"),
    [
        ({"tests/core": {"passed": 9, "failed": 2}}, {}, "2 tests of tests/core"),
        ({"tests/core": {"skipped": 9}}, {}, "no test of tests/core"),
        ({}, {"same_labels": 359}, "digits, default on cortex-a72"),
        ({}, {"largest_difference": 2e-4}, "digits, default on cortex-a72"),
        ({}, {"largest_difference": float("nan")}, "digits, default on cortex-a72"),
    ],
)
def test_each_thing_that_is_not_as_it_must_be_is_a_problem(tests, answers, said):
    assert problems_of(ALL_PASSED, [AS_HERE]) == []
    (problem,) = problems_of(ALL_PASSED | tests, [replace(AS_HERE, **answers)])
    assert said in problem


def test_every_core_has_its_entry_in_cpuinfo():
    text = cpuinfo(CPUS["cortex-a76"], 3)
    cores = [dict(line.split(": ") for line in core.splitlines()) for core in text.strip().split("\n\n")]
    assert [int(core["processor\t"]) for core in cores] == [0, 1, 2]
    assert {core["CPU part\t"] for core in cores} == {"0xd0b"}
