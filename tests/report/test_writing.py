"""`wash-fl report`: a page beside the run or where it was asked for, and one clear line if it cannot be."""

import sys
from pathlib import Path

import pytest

from wash_fl.cli.main import main
from wash_fl.errors import RunError
from wash_fl.extras import install_hint
from wash_fl.report.writing import write_page
from wash_fl.runs.folder import CONFIG, METRICS, REPORT, SUMMARY

pytest.importorskip("matplotlib")


@pytest.fixture
def report(monkeypatch, capsys):
    """``report(run, "--out", path)``: its status, and the lines it printed and complained."""

    def run(*arguments: object) -> tuple[object, list[str], list[str]]:
        monkeypatch.setattr(sys, "argv", ["wash-fl", "report", *map(str, arguments)])
        with pytest.raises(SystemExit) as exit_info:
            main()
        output = capsys.readouterr()
        return exit_info.value.code or 0, output.out.splitlines(), output.err.splitlines()

    return run


def names(folder: Path) -> list[str]:
    return sorted(each.name for each in folder.iterdir())


def test_the_page_goes_into_the_runs_folder_and_its_path_is_printed(make_run, report):
    folder = make_run()
    before = names(folder.path)
    assert report(folder.path) == (0, [str(folder.path / REPORT)], [])
    assert names(folder.path) == sorted([*before, REPORT])
    content = (folder.path / REPORT).read_bytes()
    assert b"79.25%" in content
    report(folder.path)
    assert (folder.path / REPORT).read_bytes() == content, "the same bytes each time"


def test_the_page_goes_where_it_was_asked_to_and_nowhere_else(make_run, report, tmp_path):
    folder = make_run()
    before = names(folder.path)
    output = tmp_path / "new" / "page.html"
    assert report(folder.path, "--out", output) == (0, [str(output)], [])
    assert names(output.parent) == ["page.html"] and names(folder.path) == before


def test_what_cannot_be_told_is_one_line_and_leaves_the_last_page_as_it_was(make_run, report, tmp_path):
    folder = make_run()
    write_page(folder.path)
    before = (folder.path / REPORT).read_bytes()
    for arguments, part in (
        ([tmp_path / "missing"], "not the folder of a run"),
        ([make_run("two").path, "--out", tmp_path], f"{tmp_path} is a folder"),
    ):
        status, out, complaint = report(*arguments)
        assert (status, out, len(complaint)) == (1, [], 1)
        assert complaint[0].startswith("error: ") and part in complaint[0]
    assert (folder.path / REPORT).read_bytes() == before


def test_the_page_is_made_from_what_is_whole_and_says_what_is_not(make_run, report):
    folder = make_run()
    folder.log("recalibrated", accuracy=0.7925)
    folder.log("finished")
    (folder.path / SUMMARY).write_text("")
    with (folder.path / METRICS).open("ab") as file:
        file.write(b"\0\0\0")
    status, out, complaint = report(folder.path)
    assert (status, out) == (0, [str(folder.path / REPORT)])
    assert len(complaint) == 2 and SUMMARY in complaint[0] and METRICS in complaint[1]
    page = (folder.path / REPORT).read_text(encoding="utf-8")
    assert "79.25%" in page and "not finished" not in page
    assert "Not whole" in page and f"1 line of {METRICS} cannot be read" in page and "<svg" in page


def test_a_page_without_options_says_so(make_run, report):
    folder = make_run()
    (folder.path / CONFIG).write_bytes(b"\0\0")
    assert report(folder.path)[0] == 0
    page = (folder.path / REPORT).read_text(encoding="utf-8")
    assert "The options cannot be read" in page and "79.25%" in page
    for name in (SUMMARY, METRICS):
        (folder.path / name).unlink()
    assert report(folder.path)[0] == 0
    assert "0 rounds are done" in (folder.path / REPORT).read_text(encoding="utf-8")


def test_a_crash_while_it_is_written_leaves_the_last_page_as_it_was(make_run, monkeypatch):
    folder = make_run()
    write_page(folder.path)
    before, there = (folder.path / REPORT).read_bytes(), names(folder.path)
    (folder.path / "model.onnx").write_bytes(b"another")
    monkeypatch.setattr(Path, "replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left")))
    with pytest.raises(OSError, match="No space left"):
        write_page(folder.path)
    assert (folder.path / REPORT).read_bytes() == before and names(folder.path) == there


def test_event_files_are_written_on_request_and_their_folder_is_printed(make_run, report, tmp_path):
    pytest.importorskip("tensorboard")
    folder = make_run()
    printed = [str(folder.path / REPORT), str(tmp_path / "board" / "one")]
    assert report(folder.path, "--tensorboard", tmp_path / "board") == (0, printed, [])
    assert list((tmp_path / "board" / "one").glob("events.out.tfevents.*"))


def test_without_tensorboard_the_line_says_what_to_install(make_run, report, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    folder = make_run()
    before = names(folder.path)
    status, out, (complaint,) = report(folder.path, "--tensorboard", tmp_path / "board")
    assert (status, out) == (1, []) and install_hint("tensorboard") in complaint
    assert names(folder.path) == before and not (tmp_path / "board").exists()


def test_a_folder_in_the_place_of_the_page_is_refused(make_run, refused):
    folder = make_run()
    (folder.path / REPORT).mkdir()
    with refused(RunError, str(folder.path / REPORT), "is a folder"):
        write_page(folder.path)
