"""A run's curves for TensorBoard, read back by TensorBoard's own reader."""

import sys
from pathlib import Path
from typing import Any

import pytest

from wash_fl.errors import RunError
from wash_fl.report.scalars import Scalar, run_scalars
from wash_fl.report.writing import write_events
from wash_fl.runs.record import RunRecord


def read(folder: Path) -> dict[str, list[tuple[int, float]]]:
    reader: Any = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = reader.EventAccumulator(str(folder)).Reload()
    return {
        tag: [(each.step, each.value) for each in events.Scalars(tag)] for tag in events.Tags()["scalars"]
    }


def test_every_curve_of_the_page_is_there_by_round(make_run):
    scalars = list(run_scalars(RunRecord.read(make_run().path)))
    assert Scalar("accuracy/member 2", 2, 0.22) in scalars
    assert Scalar("loss/member 0", 4, 0.25) in scalars
    assert Scalar("distance/relative", 3, 0.06) in scalars and Scalar("distance/absolute", 3, 6.0) in scalars
    assert Scalar("bytes/up_values", 1, 750_000) in scalars
    assert [each for each in scalars if each.tag == "accuracy/averaged"] == [("accuracy/averaged", 4, 0.7925)]
    assert Scalar("accuracy/ensemble", 4, 0.8125) in scalars
    unfinished = list(run_scalars(RunRecord.read(make_run("two", finished=False).path)))
    assert {each.tag for each in scalars} - {each.tag for each in unfinished} == {
        "accuracy/averaged",
        "accuracy/ensemble",
        "accuracy/mean_member",
    }


def test_tensorboard_reads_each_curve_once_however_often_it_was_written(make_run, tmp_path):
    pytest.importorskip("tensorboard")
    folder = make_run(rounds=2, finished=False)
    assert write_events(folder.path, tmp_path / "board") == tmp_path / "board" / "one"
    before = read(tmp_path / "board" / "one")
    assert before["bytes/up_messages"] == [(1, 900_000), (2, 1_800_000)]
    write_events(folder.path, tmp_path / "board")
    assert len(list((tmp_path / "board" / "one").iterdir())) == 2
    assert read(tmp_path / "board" / "one") == before


def test_a_folder_that_cannot_be_written_to_is_refused_by_name(make_run, tmp_path, refused):
    pytest.importorskip("tensorboard")
    (tmp_path / "file").write_text("")
    with refused(RunError, str(tmp_path / "file")):
        write_events(make_run().path, tmp_path / "file")


def test_without_the_package_nothing_is_written_and_it_is_missed_by_name(make_run, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(ModuleNotFoundError) as caught:
        write_events(make_run().path, tmp_path / "board")
    assert caught.value.name == "tensorboard"
    assert not (tmp_path / "board").exists()
