"""The Flower app that a run is submitted as: the one that comes with the package, or that and the code.

By default a device gets a few kilobytes, ``clients/`` and ``server/``, and runs the wash_fl that is installed
on it. With its code shipped it runs the server's, which is first on its path, for this one run; data stays
where it is installed.
"""

import re
import shutil
from pathlib import Path
from typing import Final

import wash_fl
from wash_fl.errors import RunError
from wash_fl.sources import PACKAGE, source_files

PROJECT: Final = "pyproject.toml"
COMPONENTS: Final = ("clients", "server")

_INCLUDE = re.compile(r"^fab-include = .*$", re.MULTILINE)


def app_folder() -> Path:
    """Return the Flower app that comes with the package: a checkout's root, or the installed copy."""
    package = Path(wash_fl.__file__).resolve().parent
    for folder in (package.parent, package.parent / "wash_fl_app"):
        if (folder / "clients" / "client_app.py").is_file():
            return folder
    raise RunError("the Flower app (clients/, server/) is not beside the package: install wash-fl again.")


def app_with_code(folder: Path) -> Path:
    """Make the Flower app that brings the package's code along, without its data and the laboratory.

    Parameters
    ----------
    folder : Path
        Where it is made, as a new folder.

    Returns
    -------
    Path
        That folder.

    Raises
    ------
    RunError
        If the app is not beside the package.
    """
    app = app_folder()
    patterns = ", ".join(f'"{name}/**/*.py"' for name in (*COMPONENTS, PACKAGE.name))
    project, count = _INCLUDE.subn(f"fab-include = [{patterns}]", (app / PROJECT).read_text(encoding="utf-8"))
    if count != 1:
        raise RunError(f"{app / PROJECT} has {count} lines fab-include and not one: install wash-fl again.")
    folder.mkdir(parents=True)
    (folder / PROJECT).write_text(project, encoding="utf-8")
    for name in COMPONENTS:
        shutil.copytree(app / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for path in source_files():
        copy = folder / PACKAGE.name / path
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(PACKAGE / path, copy)
    return folder
