"""The modules beside a task's file: importable in every process that loads the task, as beside a script.

Python puts the folder of a script on its path, and no task file is one. Two tasks of different folders may
each have a ``helpers.py``; the folder of the task whose functions are called is the one that counts.
"""

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType


class _Folder(MetaPathFinder):
    """Finds modules in one folder, before the rest of the path but after Python's own modules."""

    def __init__(self, path: Path) -> None:
        self._path = str(path)
        self._names: set[str] = set()
        self._modules: dict[str, ModuleType] = {}

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return where a module is, if it is a top-level one in this folder."""
        if path is not None or fullname in sys.stdlib_module_names:
            return None
        spec = PathFinder.find_spec(fullname, [self._path])
        if spec is not None and spec.loader is None:
            # A mere folder, of data perhaps: a package of that name anywhere is meant rather than it.
            elsewhere = PathFinder.find_spec(fullname)
            spec = spec if elsewhere is None or elsewhere.loader is None else None
        if spec is not None:
            self._names.add(fullname)
        return spec

    def enter(self) -> None:
        """Let modules be found here, those that were imported before included."""
        sys.modules.update(self._modules)
        sys.meta_path.insert(0, self)

    def leave(self) -> None:
        """Make room for modules of the same names in another folder."""
        own = [name for name in sys.modules if name.partition(".")[0] in self._names]
        self._modules = {name: sys.modules.pop(name) for name in own}
        sys.meta_path.remove(self)


_folders: dict[Path, _Folder] = {}
_entered: list[_Folder] = []
"""The one that counts now, if there is one."""


def enter(folder: Path | None) -> None:
    """Make the modules in a folder importable, and no longer those of the folder before.

    Parameters
    ----------
    folder : Path or None
        Of a task's file; None changes nothing.
    """
    if folder is None:
        return
    entered = _folders.setdefault(folder, _Folder(folder))
    if entered in _entered:
        return
    for each in _entered:
        each.leave()
    _entered[:] = [entered]
    entered.enter()
