"""From a task's name to its module: built-in, importable, or a file with whatever lies beside it."""

import importlib
import importlib.util
import sys
from hashlib import sha256
from pathlib import Path
from types import ModuleType

from wash_fl.errors import ConfigError
from wash_fl.tasks import beside
from wash_fl.tasks.user_code import user_code

BUILT_IN = {
    "digits": "wash_fl.tasks.digits",
    "fashion-mnist": "wash_fl.tasks.fashion_mnist",
    "smartwatch": "wash_fl.tasks.smartwatch",
    "cifar10": "wash_fl.tasks.cifar10",
    "cifar100": "wash_fl.tasks.cifar100",
}


def import_task(name: str) -> tuple[ModuleType, Path | None]:
    """Return a task's module and, if it is a file, the folder whose modules it may import.

    Parameters
    ----------
    name : str
        As :func:`wash_fl.tasks.task.load_task` takes it.

    Raises
    ------
    ConfigError
        If there is no such task, or it raises something.
    DataError
        If it needs a module that is not installed.
    """
    if name.endswith(".py"):
        path = Path(name).expanduser().resolve()
        return _import_file(path, name), path.parent
    module_name = BUILT_IN.get(name, name)
    nowhere = (
        f"there is no task {name!r}: use {', '.join(BUILT_IN)}, the name of an importable module, "
        "or the path of a .py file."
    )
    if not name or name.startswith("."):
        raise ConfigError(nowhere)
    if str(Path.cwd()) not in sys.path and "" not in sys.path:
        sys.path.append(str(Path.cwd()))  # where Flower's processes look, too
    with user_code(f"the task {name!r}", ConfigError):
        try:
            return importlib.import_module(module_name), None
        except ModuleNotFoundError as error:
            # A missing dependency *of* the task's module is another matter than a missing task.
            if error.name is not None and f"{module_name}.".startswith(f"{error.name}."):
                raise ConfigError(nowhere) from error
            raise


def _import_file(path: Path, task: str) -> ModuleType:
    if not path.is_file():
        raise ConfigError(
            f"there is no task file {path}: give the path of a Python file, or a built-in task."
        )
    name = f"wash_fl_task_{sha256(str(path).encode()).hexdigest()[:12]}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    beside.enter(path.parent)
    sys.modules[name] = module  # before execution, so that the file's own dataclasses resolve
    try:
        with user_code(f"the task {task!r}", ConfigError):
            spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module
