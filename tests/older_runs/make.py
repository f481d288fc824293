"""Writes the runs that a version leaves unfinished.

Call it as ``PYTHONPATH=.:tests/flower python tests/older_runs/make.py``. A fleet in the field is updated
while a run is on its way: the server's journal and the members' states are then of the version before. Add
what a new version writes, under a name of its own; never change what an older one has written.
"""

import json
import tempfile
import zipfile
from pathlib import Path

from tests.older_runs.unfinished import CASES, STOPPED_AFTER, StoppedError, UnfinishedRun

FOLDER = Path(__file__).parent
VERSION = "0.1.0"


def main() -> None:
    expected = {}
    for case, exchange in CASES.items():
        with tempfile.TemporaryDirectory() as undisturbed, tempfile.TemporaryDirectory() as stopped:
            expected[case] = UnfinishedRun(Path(undisturbed), exchange).run()
            try:
                UnfinishedRun(Path(stopped), exchange, STOPPED_AFTER).run()
            except StoppedError:
                _pack(Path(stopped), FOLDER / f"{VERSION}-{case}.zip")
    (FOLDER / f"{VERSION}.json").write_text(json.dumps(expected, indent=2) + "\n", encoding="utf-8")


def _pack(folder: Path, archive: Path) -> None:
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                file.writestr(zipfile.ZipInfo(str(path.relative_to(folder))), path.read_bytes())


if __name__ == "__main__":
    main()
