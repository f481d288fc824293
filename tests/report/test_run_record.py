"""A run's folder read back: what is missing is told as missing, what is damaged is refused by name."""

import hashlib
import json

import pytest

from wash_fl.errors import ConfigError, RunError
from wash_fl.report.run_folder import CONFIG, EXCHANGES, METRICS, MODEL, SUMMARY
from wash_fl.report.run_record import RunRecord


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
    assert record.sent["up_messages"] == 3_600_000
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


def test_a_folder_that_is_no_runs_is_refused(tmp_path, refused):
    for path in (tmp_path, tmp_path / "missing"):
        with refused(RunError, str(path), "not the folder of a run"):
            RunRecord.read(path)


DAMAGED = {
    METRICS: [
        b"\xff\xfe",
        b'{"event": "round"}\n',
        b'{"event": "round", "round": 1, "members": 3, "bytes": {}}\n',
        b'{"event": "member", "member": "x", "accuracy": 1}\n',
    ],
    EXCHANGES: [b"\xff\xfe", b"[]\n", b'{"members": [0], "bytes": {"0": [1, 2]}}\n'],
    SUMMARY: [
        b"",
        b"\xff",
        b"[]",
        b"{}",
        b'{"accuracy": {"averaged": null, "ensemble": 1, "mean_member": 1, "members": {}}}',
    ],
}


@pytest.mark.parametrize(("name", "content"), [(name, each) for name in DAMAGED for each in DAMAGED[name]])
def test_a_damaged_file_is_refused_by_its_name(make_run, refused, name, content):
    folder = make_run()
    (folder.path / name).write_bytes(content)
    with refused(RunError, str(folder.path / name), "damaged"):
        RunRecord.read(folder.path)


def test_damaged_options_are_refused_by_name(make_run, refused):
    folder = make_run()
    (folder.path / CONFIG).write_bytes(b"p = ")
    with refused(ConfigError, str(folder.path / CONFIG)):
        RunRecord.read(folder.path)


def test_a_summary_without_a_part_that_is_optional_is_read(make_run):
    folder = make_run()
    summary = json.loads((folder.path / SUMMARY).read_text())
    for name in ("onnx", "left_out", "bytes", "weights_sha256"):
        del summary[name]
    folder.save_summary(summary)
    record = RunRecord.read(folder.path)
    assert record.sent["up_messages"] == 3_600_000, "the last round tells"
