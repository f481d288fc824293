"""A run's folder is never written over, and says of itself what is missing or damaged."""

import errno
import fcntl
import json
import os
import re
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.holding import end, hold_in_child
from wash_fl.config import ExchangeConfig, RunConfig, fields
from wash_fl.errors import RunError
from wash_fl.option import shown_default
from wash_fl.runs.deciding import decided
from wash_fl.runs.folder import AVERAGED, CONFIG, LOG, MAY_CHANGE, METRICS, PLACES, SUMMARY, RunFolder
from wash_fl.tasks.task import load_task


def config(root: Path, **options: Any) -> RunConfig:
    return RunConfig.from_mapping({"run-dir": str(root), **options})


def names(root: Path) -> list[str]:
    return sorted(path.name for path in root.iterdir())


def enter_claimed(config: RunConfig) -> None:
    with RunFolder.claimed(config):
        pass


def enter_at_work(config: RunConfig) -> None:
    with RunFolder.at_work(config):
        pass


# Making


def test_a_run_with_a_name_has_a_folder_of_that_name(tmp_path):
    folder = RunFolder.create(config(tmp_path / "runs", **{"run-name": "first run"}))
    assert folder.path == tmp_path / "runs" / "first run"
    assert names(folder.path) == [CONFIG]


def test_a_finished_run_is_never_gone_on_with_and_nothing_in_it_is_touched(tmp_path, refused):
    first = RunFolder.create(config(tmp_path, **{"run-name": "one"}))
    first.save_summary({})
    before = (first.path / CONFIG).read_bytes()
    with refused(RunError, "'one'", "is finished", "choose another run-name"):
        RunFolder.create(config(tmp_path, **{"run-name": "one", "min-members": 2}))
    assert names(tmp_path) == ["one"] and names(first.path) == [CONFIG, SUMMARY]
    assert (first.path / CONFIG).read_bytes() == before


def test_an_unfinished_run_is_opened_again_under_its_name(tmp_path):
    first = RunFolder.create(config(tmp_path, **{"run-name": "one"}))
    first.log("start")
    again = RunFolder.create(config(tmp_path, **{"run-name": "one", "round-timeout": 7.0, "state-dir": "x"}))
    assert again.path == first.path
    assert [event["event"] for event in again.events()] == ["start"]
    assert again.config.fleet.round_timeout == 7.0


# Runs of versions whose averages were over all, whatever topology was


def of_an_older_version(root: Path, **options: Any) -> RunFolder:
    """Return the folder of an unfinished run that was begun before there were recipes."""
    old = {"mix": "auto", "schedule": "auto", "topology": "pairs", **options}
    folder = RunFolder.create(config(root, **{"run-name": "old", "recipe": "none"}))
    path = folder.path / CONFIG
    lines = [
        f'{key} = "{old[key]}"' if key in old else line
        for line in path.read_text().splitlines()
        if (key := line.split(" = ")[0]) not in {"average-from", "recipe"}
    ]
    path.write_text("\n".join(lines) + "\n")
    return folder


@pytest.mark.parametrize(
    ("options", "mix", "topology"),
    [
        ({}, "average", "all"),
        ({"mix": "average"}, "average", "all"),
        ({"mix": "auto", "topology": "permutation"}, "average", "all"),
        ({"mix": "average", "topology": "permutation"}, "average", "all"),
        ({"mix": "shuffle"}, "shuffle", "pairs"),
        ({"mix": "shuffle", "topology": "permutation"}, "shuffle", "permutation"),
        ({"schedule": "paper"}, "shuffle", "pairs"),
        ({"schedule": "paper", "topology": "permutation"}, "shuffle", "permutation"),
    ],
    ids=str,
)
def test_an_older_runs_options_are_what_its_version_made_of_them(tmp_path, options, mix, topology):
    exchange = of_an_older_version(tmp_path, **options).config.exchange
    assert (exchange.mix, exchange.topology) == (mix, topology)
    assert (exchange.p, exchange.dtype) == (ExchangeConfig().p, "float32")


@pytest.mark.parametrize("options", [{}, {"mix": "average"}, {"mix": "shuffle"}], ids=str)
def test_an_older_run_goes_on_by_the_command_that_began_it(tmp_path, options):
    folder = of_an_older_version(tmp_path, **options)
    before = folder.config.exchange
    again = RunFolder.create(decided(config(tmp_path, **{"run-name": "old"}, **options), load_task("digits")))
    assert again.path == folder.path
    assert again.config.exchange == before


def test_what_is_left_open_is_as_the_run_began_and_what_is_given_must_be(tmp_path, refused):
    digits = load_task("digits")
    began = decided(config(tmp_path, **{"run-name": "one", "recipe": "frugal", "p": 0.3}), digits)
    RunFolder.create(began)
    again = decided(config(tmp_path, **{"run-name": "one"}), digits)
    assert again.exchange == began.exchange and not again.open
    RunFolder.create(again)
    with refused(RunError, "p was 0.3 and is now 0.4"):
        RunFolder.create(decided(config(tmp_path, **{"run-name": "one", "p": 0.4}), digits))


def test_an_older_run_of_averages_does_not_go_on_in_pairs(tmp_path, refused):
    of_an_older_version(tmp_path)
    with refused(
        RunError, "topology was 'all' and is now 'pairs'", "leave topology out", "averaged over all"
    ):
        RunFolder.create(config(tmp_path, **{"run-name": "old", "topology": "pairs"}))
    assert RunFolder.create(config(tmp_path, **{"run-name": "old", "topology": "all"}))


def test_a_run_goes_on_with_options_that_mean_the_same(tmp_path):
    digits = load_task("digits")
    for options in ({"mix": "average"}, {"mix": "auto", "topology": "all"}, {"dtype": "auto"}):
        RunFolder.create(decided(config(tmp_path, **{"run-name": "one", **options}), digits))


def another_value(option: str) -> Any:
    spec = fields()[option]
    if isinstance(spec.default, str) or spec.metadata["choices"]:
        choices = spec.metadata["choices"] or ("fashion-mnist" if option == "task" else "small-cnn",)
        return next(each for each in choices if each != spec.default)
    if isinstance(spec.default, bool):
        return not spec.default
    return spec.default + 1 if isinstance(spec.default, int) else spec.default / 2 or 0.5


STREAM_ONLY = ("every", "overlap")
ANCHORED_ONLY = ("outer-learning-rate", "outer-momentum")
OF_FIVE = ("robust",)


@pytest.mark.parametrize("option", sorted(set(fields()) - {*PLACES, *MAY_CHANGE}))
def test_an_unfinished_run_does_not_go_on_with_an_option_that_changes_what_it_computes(
    tmp_path, refused, option
):
    # What is possible on the stream plane alone is another value only there.
    options = {"run-name": "one"} | ({"exchange-plane": "stream"} if option in STREAM_ONLY else {})
    options |= {"reference": "anchor"} if option in ANCHORED_ONLY else {}
    options |= {"members": 5} if option in OF_FIVE else {}
    RunFolder.create(config(tmp_path, **options))
    with refused(RunError, "'one'", "not finished", option, repr(shown_default(fields()[option]))):
        RunFolder.create(config(tmp_path, **options, **{option: another_value(option)}))


def test_a_folder_that_is_no_runs_is_left_alone(tmp_path, refused):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    (tmp_path / "file").write_text("")
    for other in ("mine", "file"):
        for make in (RunFolder.create, enter_claimed, enter_at_work):
            with refused(RunError, str(tmp_path / other), "choose another run-name"):
                make(config(tmp_path, **{"run-name": other}))
    assert names(tmp_path / "mine") == ["notes.txt"]
    (tmp_path / "empty").mkdir()  # a server that died right after it had made its folder
    assert names(RunFolder.create(config(tmp_path, **{"run-name": "empty"})).path) == [CONFIG]


def test_runs_without_a_name_have_folders_of_their_own_in_the_same_second_too(tmp_path):
    paths: list[Path] = []

    def make() -> None:
        paths.append(RunFolder.create(config(tmp_path)).path)

    threads = [threading.Thread(target=make) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(paths)) == 8
    assert all(re.fullmatch(r"digits-\d{4}-\d\d-\d\d-\d{6}(-\d)?", path.name) for path in paths)


def test_a_run_of_a_users_task_is_named_after_its_file(tmp_path):
    folder = RunFolder.create(config(tmp_path, task="/somewhere/my_task.py"))
    assert folder.path.name.startswith("my_task-")


def test_a_folder_that_cannot_be_made_is_refused_by_name(tmp_path, refused):
    # A file in its place, and not missing rights: the tests may run as root.
    (tmp_path / "file").write_text("")
    for root in (tmp_path / "file", tmp_path / "file" / "deeper"):
        for options in ({}, {"run-name": "one"}):
            with refused(RunError, "cannot make", str(root), "Not a directory"):
                RunFolder.create(config(root, **options))
    long = tmp_path / ("x" * 300)
    with refused(RunError, "cannot make", "File name too long"):
        RunFolder.create(config(long, **{"run-name": "one"}))


def test_only_a_runs_folder_is_opened(tmp_path, refused):
    folder = RunFolder.create(config(tmp_path, **{"run-name": "one"}))
    assert RunFolder.open(folder.path).config == RunConfig.from_mapping({})
    for other in (tmp_path, tmp_path / "missing", folder.path / CONFIG):
        with refused(RunError, str(other), "not the folder of a run", CONFIG):
            RunFolder.open(other)


def test_whether_a_run_can_begin_is_seen_beforehand_and_nothing_is_left(tmp_path, refused):
    RunFolder.check_free(config(tmp_path / "new" / "deeper", **{"run-name": "mine"}))
    assert names(tmp_path) == []
    other = config(tmp_path, **{"run-name": "other"})
    RunFolder.create(other)
    before = names(tmp_path / "other")
    RunFolder.check_free(other)
    assert names(tmp_path / "other") == before
    (tmp_path / "file").write_text("")
    with refused(RunError, "cannot make the run's folder"):
        RunFolder.check_free(config(tmp_path / "file"))


# One at a time


@pytest.mark.parametrize("first", ["claimed", "at_work"])
def test_a_second_command_on_a_run_is_refused_and_touches_nothing_of_it(tmp_path, refused, first):
    options = config(tmp_path, **{"run-name": "twin"})
    child = hold_in_child(lambda: getattr(RunFolder, first)(options))
    before = {path.name: path.read_bytes() for path in (tmp_path / "twin").iterdir()}
    try:
        for _ in range(2):
            with refused(RunError, "'twin'", str(tmp_path), "at work", "choose another run-name"):
                enter_claimed(options)
        assert {path.name: path.read_bytes() for path in (tmp_path / "twin").iterdir()} == before
        with RunFolder.claimed(config(tmp_path, **{"run-name": "other"})):
            pass
    finally:
        end(child)
    enter_claimed(options)  # a dead process keeps nobody out


def test_a_second_server_on_a_run_is_refused_after_a_wait_and_writes_nothing(tmp_path, refused, monkeypatch):
    monkeypatch.setattr("wash_fl.runs.folder.END_SECONDS", 0.2)
    options = config(tmp_path, **{"run-name": "twin"})
    child = hold_in_child(lambda: RunFolder.at_work(options))
    before = (tmp_path / "twin" / CONFIG).stat().st_mtime_ns
    try:
        with refused(RunError, "another server", "'twin'"):
            enter_at_work(options)
        assert (tmp_path / "twin" / CONFIG).stat().st_mtime_ns == before
    finally:
        end(child)
    enter_at_work(options)


def test_a_server_waits_for_an_earlier_one_that_ends(tmp_path):
    options = config(tmp_path, **{"run-name": "one"})
    child = hold_in_child(lambda: RunFolder.at_work(options))
    timer = threading.Timer(0.3, end, [child])
    timer.start()
    enter_at_work(options)
    timer.join()


def test_the_server_of_a_command_is_not_kept_out_by_it(tmp_path):
    options = config(tmp_path, **{"run-name": "one"})
    with RunFolder.claimed(options) as claimed, RunFolder.at_work(options) as folder:
        assert folder.path == claimed.path
    assert names(folder.path) == [CONFIG], "the locks are gone with their holders"


def test_a_command_that_came_to_nothing_leaves_nothing_and_its_name_is_free(tmp_path):
    options = config(tmp_path, **{"run-name": "one"})
    with pytest.raises(KeyboardInterrupt), RunFolder.claimed(options):
        raise KeyboardInterrupt
    assert names(tmp_path) == []
    with pytest.raises(KeyboardInterrupt), RunFolder.claimed(options) as folder:
        (folder.path / LOG).write_text("Flower did not start")
        raise KeyboardInterrupt
    assert names(folder.path) == [LOG]
    enter_at_work(config(tmp_path, **{"run-name": "one", "p": 0.7}))
    assert names(folder.path) == [CONFIG, LOG]


def test_what_a_killed_process_leaves_of_a_run_that_did_not_begin_is_no_obstacle(tmp_path):
    folder = tmp_path / "one"
    folder.mkdir()
    for name in (".command.lock", ".server.lock", f".{CONFIG}.0123.part", ".space.part"):
        (folder / name).write_text("")
    enter_claimed(config(tmp_path, **{"run-name": "one"}))


def failing(number: int) -> Any:
    def fail(*_: Any, **__: Any) -> None:
        raise OSError(number, os.strerror(number))

    return fail


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS])
def test_a_full_or_read_only_folder_is_refused_before_anything_is_started(
    tmp_path, refused, monkeypatch, number
):
    # Not missing rights: the tests may run as root.
    monkeypatch.setattr(Path, "write_bytes", failing(number))
    with refused(RunError, str(tmp_path / "one"), os.strerror(number), "another run-dir"):
        enter_claimed(config(tmp_path, **{"run-name": "one"}))
    assert names(tmp_path) == []


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_refused_and_none_is_made_up(tmp_path, refused, monkeypatch, number):
    monkeypatch.setattr(fcntl, "flock", failing(number))
    for enter in (enter_claimed, enter_at_work):
        with refused(RunError, "cannot lock", str(tmp_path / "one"), "file locks"):
            enter(config(tmp_path, **{"run-name": "one"}))


# The options


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"p": 1e-07, "learning-rate": 0.1, "learning-rate-end": 1e-16, "round-timeout": 1e20},
        {"exchange-optimizer": True, "seed": 2**63 - 1, "mix": "average"},
        {"task": 'C:\\tasks\\"my" ü 𝄞 task\t.py'},
    ],
)
def test_the_options_are_read_back_as_they_were_except_for_places(tmp_path, options):
    places = {"run-name": "one", "state-dir": "/elsewhere"}
    settings = config(tmp_path, **options, **places)
    folder = RunFolder.create(settings)
    assert RunFolder.open(folder.path).config == RunConfig.from_mapping(options)
    text = (folder.path / CONFIG).read_text(encoding="utf-8")
    assert not any(line.startswith(PLACES) for line in text.splitlines())
    # complete: whatever a later version's defaults are, the file starts the same run
    assert len(text.splitlines()) == len(settings.to_mapping()) - len(PLACES)


# Events


def test_events_are_read_in_order_as_they_were_logged(tmp_path):
    folder = RunFolder.create(config(tmp_path))
    assert list(folder.events()) == []
    folder.log("start", task="dígits\n", rounds=3)
    folder.log("round", round=1, members={"0": {"loss": 0.5}}, distance=None)
    assert list(folder.events()) == [
        {"event": "start", "task": "dígits\n", "rounds": 3},
        {"event": "round", "round": 1, "members": {"0": {"loss": 0.5}}, "distance": None},
    ]
    assert len((folder.path / METRICS).read_text().splitlines()) == 2


def test_a_last_line_that_was_cut_short_anywhere_is_passed_over(tmp_path):
    folder = RunFolder.create(config(tmp_path))
    folder.log("start", task="ä𝄞")
    folder.log("round", round=1, note="ä𝄞")
    content = (folder.path / METRICS).read_bytes()
    second = content.index(b"\n") + 1
    for length in range(second, len(content) - 1):
        (folder.path / METRICS).write_bytes(content[:length])
        assert [event["event"] for event in folder.events()] == ["start"]


def test_an_event_after_a_line_that_was_cut_short_is_not_lost(tmp_path):
    folder = RunFolder.create(config(tmp_path))
    folder.log("start")
    with (folder.path / METRICS).open("a") as file:
        file.write('{"event": "rou')
    folder.log("resume")
    folder.log("round", round=2)
    assert [event["event"] for event in folder.events()] == ["start", "resume", "round"]
    assert folder.last("round") == {"event": "round", "round": 2}
    assert folder.last("finished") == {}


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_metric_that_is_not_a_number_is_no_json_and_leaves_the_file_as_it_was(tmp_path, bad):
    folder = RunFolder.create(config(tmp_path))
    folder.log("start")
    before = (folder.path / METRICS).read_bytes()
    with pytest.raises(ValueError, match="JSON"):
        folder.log("round", loss=bad)
    with pytest.raises(ValueError, match="JSON"):
        folder.save_summary({"accuracy": bad})
    assert (folder.path / METRICS).read_bytes() == before
    assert not (folder.path / SUMMARY).exists()


# What came out


def test_weights_and_summary_are_read_back(tmp_path):
    folder = RunFolder.create(config(tmp_path))
    weights = {
        "transposed": np.arange(6, dtype=np.float32).reshape(2, 3).T,
        "count": np.array(7),
        "empty": np.empty((0, 2), dtype=np.float32),
    }
    folder.save_weights(weights)
    back = folder.weights()
    assert set(back) == set(weights)
    for name, array in weights.items():
        assert back[name].dtype == array.dtype and np.array_equal(back[name], array)
    folder.save_summary({"accuracy": {"averaged": 0.5}, "ü": [1]})
    assert folder.summary() == {"accuracy": {"averaged": 0.5}, "ü": [1]}
    assert json.loads((folder.path / SUMMARY).read_text(encoding="utf-8")) == folder.summary()


def test_the_members_that_were_averaged_are_read_back_in_order_and_no_others(tmp_path, refused):
    folder = RunFolder.create(config(tmp_path))
    for member in (10, 2, 3, 2):  # one is collected again after a crash, one is left out in the end
        folder.save_member(member, {"weight": np.full((2, 3), member, dtype=np.float32).T})
    with refused(RunError, "did not finish"):
        folder.members()
    folder.save_summary({"members": [10, 2]})
    members = folder.members()
    assert list(members) == [2, 10]
    assert [each["weight"].shape for each in members.values()] == [(3, 2), (3, 2)]
    assert members[10]["weight"][0, 0] == 10
    path = folder.path / "models" / "10.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    with refused(RunError, "10.safetensors", "is damaged"):
        folder.members()


def test_a_run_that_did_not_finish_has_neither_and_says_so(tmp_path, refused):
    folder = RunFolder.create(config(tmp_path))
    with refused(RunError, str(folder.path), SUMMARY, "did not finish"):
        folder.summary()
    with refused(RunError, str(folder.path), AVERAGED, "did not finish"):
        folder.weights()


def test_damaged_results_are_refused_by_name(tmp_path, refused):
    folder = RunFolder.create(config(tmp_path))
    folder.save_weights({"weight": np.zeros(3, dtype=np.float32)})
    whole = (folder.path / AVERAGED).read_bytes()
    for content in (b"", whole[:20], whole[:-1], b"text" * 50):
        (folder.path / AVERAGED).write_bytes(content)
        with refused(RunError, str(folder.path / AVERAGED), "damaged"):
            folder.weights()
    for content in (b"", b'{"accuracy": ', b"\xff\xfe"):
        (folder.path / SUMMARY).write_bytes(content)
        with refused(RunError, str(folder.path / SUMMARY), "damaged"):
            folder.summary()


def test_half_files_of_a_server_that_was_killed_are_gone_when_the_run_goes_on(tmp_path):
    options = config(tmp_path, **{"run-name": "one"})
    folder = RunFolder.create(options)
    (folder.path / f".{AVERAGED}.0123456789abcdef.part").write_bytes(b"half a model")
    (folder.path / ".mine").touch()
    enter_at_work(options)
    assert ".mine" in names(folder.path) and not list(folder.path.glob(".*.part"))
