"""A journal and members' states that an older version has written go on, hash for hash."""

import json
import zipfile
from pathlib import Path

import pytest

from tests.older_runs.unfinished import CASES, MEMBERS, ROUNDS, STOPPED_AFTER, StoppedError, UnfinishedRun

FOLDER = Path(__file__).parent
EXPECTED = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(FOLDER.glob("*.json"))}


@pytest.mark.parametrize(
    "version, case", [(version, case) for version, hashes in EXPECTED.items() for case in hashes]
)
def test_what_an_older_version_left_unfinished_goes_on_hash_for_hash(tmp_path, version, case):
    with zipfile.ZipFile(FOLDER / f"{version}-{case}.zip") as file:
        file.extractall(tmp_path)
    run = UnfinishedRun(tmp_path, CASES[case])
    assert run.run() == EXPECTED[version][case]
    # It went on, and did not begin again.
    assert [report.round for report in run.reports] == list(range(STOPPED_AFTER + 1, ROUNDS + 1))
    assert all(len(report.metrics) == MEMBERS for report in run.reports)


@pytest.mark.parametrize("case", CASES)
def test_what_this_version_leaves_unfinished_goes_on_hash_for_hash(tmp_path, case):
    with pytest.raises(StoppedError):
        UnfinishedRun(tmp_path, CASES[case], STOPPED_AFTER).run()
    assert UnfinishedRun(tmp_path, CASES[case]).run() == UnfinishedRun(tmp_path / "again", CASES[case]).run()
