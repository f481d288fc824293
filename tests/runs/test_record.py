"""A run's folder read back: what is whole is read, and what is missing or damaged is told by name."""

import hashlib
import json
from dataclasses import replace

import pytest

from wash_fl.errors import RunError
from wash_fl.runs.folder import CONFIG, EXCHANGES, METRICS, MODEL, SUMMARY
from wash_fl.runs.record import RunRecord


def test_a_finished_run_is_read_back_whole(make_run):
    folder = make_run()
    record = RunRecord.read(folder.path)
    assert (record.name, record.version, record.failure) == ("one", "9.8.7", "")
    assert record.config == folder.config
    assert [each.number for each in record.rounds] == [1, 2, 3, 4]
    assert record.rounds[1].metrics[2] == {"loss": 0.5, "accuracy": 0.22}
    assert record.members == [0, 1, 2]
    assert record.result is not None
    assert record.result.left_out == {2: "given up: it was away too long"}
    assert record.traffic["up_messages"] == 3_600_000
    one = record.by_member[1]
    assert (one.exchanges, one.up_values, one.up_messages) == (4, 8000, 8800)
    assert (one.down_values, one.down_messages) == (2400, 2640)
    assert record.by_member[2].exchanges == 0 and record.by_member[2].up_messages == 28
    assert record.model is not None
    assert (record.model.bytes, record.model.sha256) == (7, hashlib.sha256(b"a model").hexdigest())


def test_a_round_that_was_repeated_after_a_crash_counts_once_and_as_it_was_last(make_run):
    folder = make_run(finished=False)
    last = {"round": 2, "members": {"0": {"accuracy": 0.9}}, "bytes": {"up_messages": 1, "up_values": 1}}
    folder.log("round", **last)
    record = RunRecord.read(folder.path)
    assert [each.number for each in record.rounds] == [1, 2, 3, 4]
    assert record.rounds[1].metrics == {0: {"accuracy": 0.9}}


def test_a_run_stands_failed_only_until_it_goes_on(make_run):
    folder = make_run(finished=False)
    folder.log("failed", reason="no member is left")
    assert RunRecord.read(folder.path).failure == "no member is left"
    folder.log("resume", version="9.9.0")
    record = RunRecord.read(folder.path)
    assert (record.failure, record.version) == ("", "9.9.0")


def test_what_a_folder_does_not_hold_is_missing_and_no_error(make_run):
    folder = make_run(summary={"onnx": {}, "left_out": {}})
    for name in (METRICS, EXCHANGES, MODEL):
        (folder.path / name).unlink()
    record = RunRecord.read(folder.path)
    assert (record.rounds, record.by_member, record.model, record.version) == ([], {}, None, "")
    assert record.result is not None and record.result.agreement is None
    for name in (SUMMARY, MODEL):
        (folder.path / name).unlink(missing_ok=True)
    assert RunRecord.read(folder.path).result is None


def test_lines_that_a_crash_cut_short_are_passed_over(make_run):
    folder = make_run(finished=False)
    for name in (METRICS, EXCHANGES):
        content = (folder.path / name).read_bytes()
        (folder.path / name).write_bytes(content[:-20])
    record = RunRecord.read(folder.path)
    assert len(record.rounds) == 3 and record.by_member[0].exchanges == 3
    assert record.missing == [f"1 line of {name} cannot be read" for name in (METRICS, EXCHANGES)]


def test_a_line_after_one_that_was_cut_short_is_not_lost_with_it(make_run):
    folder = make_run(finished=False)
    content = (folder.path / EXCHANGES).read_bytes()
    (folder.path / EXCHANGES).write_bytes(content[:-20])
    folder.log_exchange(exchange=4, members=[0], bytes={"0": [10, 1, 5, 1]})
    assert RunRecord.read(folder.path).by_member[0].exchanges == 4


def test_a_folder_that_is_no_runs_is_refused(tmp_path, refused):
    for path in (tmp_path, tmp_path / "missing"):
        with refused(RunError, str(path), "not the folder of a run"):
            RunRecord.read(path)


ROUND = b'{"event": "round", "round": 1, "members": 3, "bytes": {}}\n'
LINES = {
    METRICS: [
        b"\xff\xfe\n",
        b"\0" * 500 + b"\n",
        b"[" * 100_000 + b"\n",
        b"7\n",
        b"{}\n",
        b'{"event": "round"}\n',
        ROUND,
        b'{"event": "member", "member": "x", "accuracy": 1}\n',
        b'{"event": "recalibrated", "accuracy": null}\n',
    ],
    EXCHANGES: [b"\xff\xfe\n", b"\0" * 500 + b"\n", b"[]\n", b'{"members": [0], "bytes": {"0": [1, 2]}}\n'],
}


@pytest.mark.parametrize(("name", "line"), [(name, each) for name in LINES for each in LINES[name]])
def test_a_damaged_line_is_told_and_the_others_are_read(make_run, name, line):
    folder = make_run()
    before = RunRecord.read(folder.path)
    assert before.missing == []
    first, rest = (folder.path / name).read_bytes().split(b"\n", 1)
    (folder.path / name).write_bytes(first + b"\n" + line + rest)
    record = RunRecord.read(folder.path)
    assert record.missing == [f"1 line of {name} cannot be read"]
    assert replace(record, missing=[]) == before


def test_a_file_of_nothing_but_damage_is_told_and_what_it_would_say_is_missing(make_run):
    folder = make_run()
    for name in (METRICS, EXCHANGES):
        (folder.path / name).write_bytes(b"\0\0\n\0\n")
    record = RunRecord.read(folder.path)
    assert (record.rounds, record.by_member) == ([], {})
    assert record.missing == [f"2 lines of {name} cannot be read" for name in (METRICS, EXCHANGES)]
    assert record.result is not None and record.finished


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff",
        b"\0" * 300,
        b"[]",
        b"{}",
        b'{"accuracy": {"averaged": null, "ensemble": 1, "mean_member": 1, "members": {}}}',
    ],
)
def test_a_damaged_summary_is_told_and_the_run_is_still_finished(make_run, content):
    folder = make_run()
    folder.log("averaged", accuracy=0.5)
    folder.log("recalibrated", accuracy=0.79)
    (folder.path / SUMMARY).write_bytes(content)
    record = RunRecord.read(folder.path)
    assert len(record.missing) == 1 and record.missing[0].startswith(f"{SUMMARY} cannot be read (")
    assert (record.result, record.finished, record.averaged) == (None, True, 0.79)
    assert len(record.rounds) == 4 and record.by_member[1].exchanges == 4


def test_a_summary_that_was_there_and_is_not_any_more_is_told(make_run):
    folder = make_run()
    (folder.path / SUMMARY).unlink()
    record = RunRecord.read(folder.path)
    assert record.finished and record.missing == [f"{SUMMARY} is not there any more"]
    unfinished = RunRecord.read(make_run("two", finished=False).path)
    assert not unfinished.finished and unfinished.missing == []


@pytest.mark.parametrize("content", [b"p = ", b"\0" * 100, b"\xff\xfe\x00", b"colour = 3"])
def test_damaged_options_are_told_and_the_rest_is_read(make_run, content):
    folder = make_run()
    (folder.path / CONFIG).write_bytes(content)
    record = RunRecord.read(folder.path)
    assert record.config is None and record.result is not None
    assert len(record.missing) == 1 and record.missing[0].startswith(f"{CONFIG} cannot be read (")


@pytest.mark.parametrize("name", [METRICS, EXCHANGES, SUMMARY, MODEL])
def test_a_folder_in_the_place_of_a_file_is_no_file(make_run, name):
    folder = make_run()
    (folder.path / name).unlink()
    (folder.path / name).mkdir()
    record = RunRecord.read(folder.path)
    if name == MODEL:
        assert record.model is None
    else:
        assert len(record.missing) == 1 and record.missing[0].startswith(f"{name} cannot be read (")


def test_a_summary_without_a_part_that_is_optional_is_read(make_run):
    folder = make_run()
    summary = json.loads((folder.path / SUMMARY).read_text())
    for name in ("onnx", "left_out", "bytes", "weights_sha256"):
        del summary[name]
    folder.save_summary(summary)
    record = RunRecord.read(folder.path)
    assert record.traffic["up_messages"] == 3_600_000, "the last round tells"
