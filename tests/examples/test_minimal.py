"""WASH on one page runs, and shows what WASH is worth."""

import ast
import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

PAGE = Path(__file__).resolve().parents[2] / "examples" / "minimal.py"


@pytest.fixture(scope="module")
def minimal() -> Any:
    spec = importlib.util.spec_from_file_location("minimal", PAGE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_it_is_one_page_and_needs_neither_flower_nor_wash_fl():
    code = PAGE.read_text()
    assert len(code.splitlines()) <= 120
    imported = {
        (each.module or "") if isinstance(each, ast.ImportFrom) else each.names[0].name
        for each in ast.walk(ast.parse(code))
        if isinstance(each, ast.Import | ast.ImportFrom)
    }
    assert {name.split(".")[0] for name in imported} == {"copy", "torch", "sklearn"}


@pytest.mark.long
def test_the_average_of_shuffled_members_is_near_their_ensemble_and_that_of_isolated_ones_is_not():
    printed = subprocess.run(
        [sys.executable, PAGE], capture_output=True, text=True, check=True, timeout=580
    ).stdout
    wash, isolated = (
        [float(each) / 100 for each in re.findall(r"([\d.]+)%", line)] for line in printed.splitlines()
    )
    _, ensemble, averaged = wash
    assert averaged >= 0.95
    assert averaged >= ensemble - 0.02
    members_alone, _, averaged_alone = isolated
    # The isolated members are well trained, each of them: it is their average that is not.
    assert members_alone >= 0.95
    assert averaged >= averaged_alone + 0.1


def tensors(members: list[torch.nn.Module]) -> list[torch.Tensor]:
    """Each parameter of all members, stacked."""
    same = zip(*(each.parameters() for each in members), strict=True)
    return [torch.stack(each).detach().clone() for each in same]


def test_a_shuffle_keeps_the_values_at_every_coordinate_and_moves_some(minimal):
    members = [minimal.new_model() for _ in range(4)]
    # BatchNorm begins with equal values, which no swap would show.
    random = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in (each for member in members for each in member.parameters()):
            parameter.normal_(generator=random)
    before = tensors(members)
    minimal.shuffle(members, 0.5, torch.Generator().manual_seed(0))
    after = tensors(members)
    for old, new in zip(before, after, strict=True):
        assert torch.equal(old.sort(0).values, new.sort(0).values)
    # The first tensor is shuffled most, the last not at all.
    assert not torch.equal(before[0], after[0])
    assert torch.equal(before[-1], after[-1])
