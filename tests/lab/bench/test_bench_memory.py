"""The bench of memory measures processes, each alone; how much they take is the machine's affair."""

import os

import psutil
import pytest

from wash_fl.errors import RunError
from wash_fl.lab.bench import memory
from wash_fl.system.peak import resident_peak

pytestmark = pytest.mark.skipif(not resident_peak(), reason="only Linux says how much memory a process has")


def test_a_part_is_measured_in_a_process_of_its_own():
    empty, full = memory._python(""), memory._python("x = b'a' * 100_000_000; y = len(x)")
    assert 0 < empty["private"] < empty["peak"] < 40
    assert full["peak"] - empty["peak"] == pytest.approx(100, abs=3)
    freed = memory._python("x = b'a' * 100_000_000; del x")
    assert freed["peak"] - freed["private"] > 100


def test_a_part_that_fails_is_named_with_its_reason(refused):
    with refused(RunError, "the export", "ValueError: why"):
        memory._python("raise ValueError('why')", "the export")


def test_what_is_not_installed_is_skipped_and_said(monkeypatch):
    monkeypatch.setattr(memory, "find_spec", lambda name: None)
    figures = memory.run()
    assert set(figures) == {"model", "batch", "python", "skipped"}
    assert set(figures["skipped"]) == {"import_torch", "flower", "train", "infer"}
    assert figures["skipped"]["flower"] == "not installed: flwr"


def test_elsewhere_than_on_linux_it_says_that_it_cannot(monkeypatch, refused):
    monkeypatch.setattr(memory, "resident_peak", lambda: 0)
    with refused(RunError, "Linux"):
        memory.run()


def test_a_device_that_trains_has_flower_beside_the_clientapp(monkeypatch):
    monkeypatch.setattr(memory, "_flower", lambda: {"flower": {"peak": 200.0, "private": 150.0}})
    monkeypatch.setattr(
        memory,
        "_train",
        lambda sides: {
            f"train_{side}x{side}": {"peak": 1.0 * side, "private": 2.0, "ms": 9.0} for side in sides
        },
    )
    monkeypatch.setattr(memory, "_infer", lambda sides: {})
    monkeypatch.setattr(memory, "_python", lambda code: {"peak": 1.0, "private": 1.0})
    figures = memory.run((32, 64))
    assert figures["device_training_32x32"] == {"peak": 232.0, "private": 152.0}
    assert figures["device_training_64x64"] == {"peak": 264.0, "private": 152.0}
    assert "skipped" not in figures


@pytest.mark.long
def test_a_supernode_is_measured_and_nothing_of_it_stays():
    figures = memory._flower()
    for part in ("flower_supernode", "flower_superexec", "flower_clientapp"):
        assert 30 < figures[part]["private"] < figures[part]["peak"] < 1000
    both = figures["flower_supernode"]["peak"] + figures["flower_superexec"]["peak"]
    assert figures["flower"]["peak"] == pytest.approx(both)
    ours = psutil.Process(os.getpid()).children(recursive=True)
    assert not [each for each in ours if "flower-super" in " ".join(each.cmdline())]


@pytest.mark.long
def test_training_and_inference_are_measured_on_the_real_model():
    pytest.importorskip("torchvision")
    trained = memory._train((32,))["train_32x32"]
    inferred = memory._infer((32,))["infer_32x32"]
    assert trained["ms"] > 0 and trained["private"] < trained["peak"]
    # Without torch, inference is a fraction.
    assert inferred["peak"] < trained["peak"] / 3
