"""Which extra brings what a machine lacks, and the command that installs it from where this package came."""

import json
import shlex
import tomllib
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote, urlsplit

DISTRIBUTION: Final = "wash-fl"

MODULES: Final = {
    "onnxruntime": "infer",
    "PIL": "infer",
    "torch": "client",
    "flwr": "client",
    "grpc": "client",
    "cryptography": "client",
    "onnx": "server",
    "onnxscript": "server",
    "matplotlib": "server",
    "psutil": "server",
    "ray": "simulation",
    "torchvision": "simulation",
    "tensorboard": "tensorboard",
}
"""The smallest extra that brings a module."""

COMMANDS: Final = {
    "check": "server",
    "simulate": "simulation",
    "evaluate": "server",
    "export": "server",
    "report": "server",
    "serve": "server",
    "fleet": "server",
    "fleet key": "client",
    "bench exchange": "simulation",
    "bench stream": "simulation",
    "bench overhead": "simulation",
    "bench int8": "simulation",
}
"""The extra that brings all that a command needs, where what it misses first comes with a smaller one."""


def extra_for(module: str, command: str = "") -> str | None:
    """Return the one extra with which a command has all that it needs; None if none brings the module.

    Parameters
    ----------
    module : str
        What is missing, such as ``"matplotlib.figure"``.
    command : str
        Of the command line, such as ``"bench memory"``; without one the module alone counts.
    """
    smallest = MODULES.get(module.partition(".")[0])
    if smallest is None or smallest == "tensorboard":
        return smallest
    return COMMANDS.get(command, COMMANDS.get(command.partition(" ")[0], smallest))


def install_hint(extra: str, *options: str) -> str:
    """Return the command that installs an extra from where this package itself was installed.

    That is a checkout, a file, a repository or a package index, as pip has written down (PEP 610).

    Parameters
    ----------
    extra : str
        Its name.
    options : str
        Of pip, such as ``"--upgrade"``.
    """
    return " ".join(["pip install", *options, _requirement(f"[{extra}]", _origin())])


def _origin() -> dict[str, Any] | None:
    """Return what pip has written down; None if it took this package from an index."""
    from importlib.metadata import PackageNotFoundError, distribution  # seldom needed, and slow to import

    try:
        text = distribution(DISTRIBUTION).read_text("direct_url.json")
        return None if text is None else dict(json.loads(text))
    except PackageNotFoundError:
        # Not installed, but found in a folder: if that is a checkout, it can be.
        root = Path(__file__).resolve().parent.parent
        return {"url": root.as_uri() if _is_checkout(root) else "", "dir_info": {"editable": True}}
    except ValueError:
        return {"url": "", "dir_info": {"editable": True}}


def _requirement(own: str, origin: dict[str, Any] | None) -> str:
    if origin is None:
        return shlex.quote(DISTRIBUTION + own)
    url = urlsplit(str(origin.get("url", "")))
    path = Path(unquote(url.path))
    if "vcs_info" in origin:
        vcs = origin["vcs_info"]
        where = f"#subdirectory={origin['subdirectory']}" if origin.get("subdirectory") else ""
        return shlex.quote(f"{DISTRIBUTION}{own} @ {vcs['vcs']}+{url.geturl()}@{vcs['commit_id']}{where}")
    if url.scheme in ("http", "https"):
        return shlex.quote(f"{DISTRIBUTION}{own} @ {url.geturl()}")
    editable = "-e " if origin.get("dir_info", {}).get("editable") else ""
    if url.scheme == "file" and path.exists():
        return editable + shlex.quote(f"{path}{own}")
    return f"{editable}{shlex.quote('.' + own)} in a checkout of wash_fl"


def _is_checkout(root: Path) -> bool:
    try:
        project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        return bool(project["name"] == DISTRIBUTION and (root / project["readme"]).is_file())
    except (OSError, ValueError, KeyError):
        return False
