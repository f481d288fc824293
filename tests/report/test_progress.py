"""What a person sees of a run: a line per round, and paths that can be copied from a narrow terminal."""

from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from wash_fl.config import RunConfig
from wash_fl.report.amounts import size
from wash_fl.report.progress import Progress
from wash_fl.runs.folder import AVERAGED, FIGURES, METRICS, MODEL, RunFolder


def round_event(number: int, **changes: Any) -> dict[str, Any]:
    event: dict[str, Any] = {
        "event": "round",
        "round": number,
        "participants": [0, 1, 2],
        "absent": [],
        "members": {"0": {"loss": 0.5, "accuracy": 0.5}, "1": {"loss": 0.25}, "2": {"accuracy": 0.75}},
        "distance": 1.25,
        "relative_distance": 0.5,
        "bytes": {"up_messages": 12_345, "up_values": 12_000},
        "seconds": 0.5,
    }
    return event | changes


def lines_of(*events: dict[str, Any], rounds: int = 12, width: int = 40) -> list[str]:
    stream = StringIO()
    with Progress(Console(width=width, file=stream), rounds) as progress:
        for event in events:
            progress.show(event)
    return stream.getvalue().splitlines()[1:]


def test_a_round_is_one_line_with_loss_distance_bytes_and_accuracy():
    assert lines_of(round_event(3)) == [
        "round  3/12  3 members  loss 0.375  distance 1.25 (50% of their norm)  sent up 12.3 kB  "
        "members 50.0% to 75.0%"
    ]


def test_a_round_says_who_was_absent_and_leaves_out_what_there_is_not():
    event = round_event(
        12, participants=[1], absent=[0, 2], members={"1": {}}, distance=None, relative_distance=None
    )
    assert lines_of(event) == ["round 12/12  1 members  sent up 12.3 kB  absent: 0, 2"]


def test_why_members_were_absent_is_said_once_for_all_who_have_the_same_reason():
    raised = "ValueError: Target 10 is out of bounds (my_task.py:31)"
    event = round_event(3, participants=[1], members={"1": {}}, absent=[0, 2, 3, 4], distance=None)
    event["absent_because"] = {"0": raised, "2": "no reply in time.", "3": raised, "5": "x" * 500}
    (line,) = lines_of(event)
    text = f"absent: 0, 3 ({raised}), 2 (no reply in time), 4, 5 ({'x' * 197}...)"
    assert line == f"round  3/12  1 members  sent up 12.3 kB  {text}"


def test_a_run_is_a_line_per_event_and_unknown_events_are_none():
    lines = lines_of(
        {"event": "start"},
        *(round_event(number) for number in (1, 2)),
        {"event": "member", "member": 1, "accuracy": 0.875},
        {"event": "averaged", "accuracy": 0.5},
        {"event": "recalibrated", "accuracy": 0.9},
        {"event": "finished"},
        {"event": "of a later version"},
        rounds=2,
    )
    assert [line.split()[0] for line in lines] == [
        "the",
        "round",
        "round",
        "collected",
        "averaged:",
        "averaged,",
    ]
    assert lines[3] == "collected member 1: 87.50% on the test data"
    assert lines[5] == "averaged, BatchNorm re-estimated: 90.00%"


SUMMARY = {
    "accuracy": {
        "members": {"0": 0.91, "1": 0.93},
        "mean_member": 0.92,
        "ensemble": 0.95,
        "averaged_before_batchnorm": 0.5,
        "averaged": 0.94,
    },
    "bytes": {"up_values": 2_000_000, "up_messages": 2_200_000, "up_models": 190_000},
    "onnx": {"agreement": 1.0},
}


def summarized(root: Path, name: str, width: int) -> tuple[RunFolder, str]:
    folder = RunFolder.create(RunConfig.from_mapping({"run-dir": str(root), "run-name": name}))
    folder.save_summary(SUMMARY)
    stream = StringIO()
    Progress(Console(width=width, file=stream), 2).summarize(folder)
    return folder, stream.getvalue()


@pytest.mark.parametrize("width", [40, 200])
def test_the_result_has_every_accuracy_the_bytes_and_whole_paths(tmp_path, width):
    folder, text = summarized(tmp_path / ("long" * 15), "run [one]", width)
    for number in ("91.00% to 93.00%", "95.00%", "94.00%", "100.00%"):
        assert number in text
    lines = text.splitlines()
    for name in (MODEL, AVERAGED, METRICS, FIGURES):
        assert str(folder.path / name) in lines, "a path is one line, and nothing else is on it"
    (line,) = [line for line in lines if line.startswith("each member sent")]
    assert "1 MB of values in 1.1 MB of messages" in line and "(95 kB) once" in line
    assert folder.path.name in text


def test_buffers_are_shown_where_there_are_others_than_batchnorms(tmp_path, monkeypatch):
    norm = {"re-estimated": ["norm.running_mean", "norm.running_var"]}
    for name, buffers, visible in (
        ("none", {}, False),
        ("norm", norm, False),
        ("more", norm | {"from member 1": ["[ema]"]}, True),
    ):
        monkeypatch.setitem(SUMMARY, "buffers", buffers)
        _, text = summarized(tmp_path, name, 100)
        lines = [line for line in text.splitlines() if line.startswith("buffers")]
        assert lines == ["buffers from member 1: [ema]"] * visible


def test_a_folder_with_brackets_in_its_name_is_named_as_it_is(tmp_path):
    for name in ("[bold]", "a [red] b", "[\\b]"):
        _, text = summarized(tmp_path, name, 100)
        assert text.splitlines()[0].startswith(f"{name} (")


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (999.9, "1 kB"),
        (1000, "1 kB"),
        (12_345, "12.3 kB"),
        (999_400, "999 kB"),
        (999_999, "1 MB"),
        (44_700_000, "44.7 MB"),
        (2_500_000_000, "2.5 GB"),
    ],
)
def test_bytes_are_three_digits_and_a_unit(count, text):
    assert size(count) == text
