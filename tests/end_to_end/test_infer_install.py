"""The extra ``infer`` in an environment of its own: small, without torch, and it classifies an image."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tools.infer_install import LIMIT_MB, problems_of

ROOT = Path(__file__).resolve().parents[2]
GOOD = {"megabytes": 200.0, "unwanted": [], "label": "3", "here": "3"}


@pytest.mark.long
def test_a_fresh_environment_is_small_and_classifies_an_image_in_one_command():
    done = subprocess.run(
        [sys.executable, str(ROOT / "tools" / "infer_install.py"), "--json"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert 50 < found["megabytes"] < LIMIT_MB
    assert found["label"] == found["here"] and found["probability"] > 0.2
    assert found["unwanted"] == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"megabytes": 250.0}, "too much"),
        ({"unwanted": ["torch"]}, "torch came along"),
        ({"label": "8"}, "'8' there and '3' here"),
    ],
)
def test_the_tool_fails_for_each_thing_that_is_not_as_it_must_be(change, said):
    assert problems_of(GOOD) == []
    (problem,) = problems_of(GOOD | change)
    assert said in problem
