"""What a fleet on this machine is, in a file of its folder, so that any later command finds it again."""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wash_fl.errors import RunError
from wash_fl.files import write_text

FILE = "fleet.json"
VERSION = 1

LARGEST = 100
"""Members; each takes a SuperNode of some 250 MB before its model."""


@dataclass(frozen=True)
class Description:
    """A fleet's facts that outlive its processes.

    Attributes
    ----------
    mark : str
        What its processes are found by.
    members : int
        How many SuperNodes it has.
    port : int
        On which its SuperLink listens.
    nodes : tuple of str
        Flower's ids of the SuperNodes whose keys are registered, member after member; empty if not known.
    streams : int
        Port on which a run's server listens for streams; 0 if none is chosen yet.
    """

    mark: str
    members: int
    port: int
    nodes: tuple[str, ...] = ()
    streams: int = 0

    def save(self, folder: Path) -> None:
        """Write it, atomically."""
        content = {"version": VERSION, **dataclasses.asdict(self)}
        write_text(folder / FILE, json.dumps(content, indent=2) + "\n")

    @classmethod
    def load(cls, folder: Path) -> "Description":
        """Read it back.

        Raises
        ------
        RunError
            If there is none, or it is damaged or of another version.
        """
        path = folder / FILE
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise RunError(
                f"{folder} is not the folder of a fleet (it has no {FILE}): give that of `wash-fl fleet up`."
            ) from error
        except OSError as error:
            raise RunError(f"cannot read {path}: {error.strerror}.") from error
        except ValueError as error:
            raise RunError(f"{path} is damaged ({error}): {_AWAY}") from error
        if not isinstance(content, dict) or content.get("version") != VERSION:
            version = content.get("version") if isinstance(content, dict) else None
            raise RunError(f"{path} has version {version!r}; this wash-fl reads {VERSION}: {_AWAY}")
        try:
            return cls(**_checked(content))
        except (KeyError, TypeError, ValueError) as error:
            raise RunError(f"{path} is damaged ({error!r}): {_AWAY}") from error


_AWAY = "stop what runs, move the folder away, and start a new fleet."


def _checked(content: dict[str, Any]) -> dict[str, Any]:
    mark, members, port, nodes = (content[name] for name in ("mark", "members", "port", "nodes"))
    # A short or empty mark would be found on processes that are not ours.
    if type(mark) is not str or len(mark) < 16:
        raise ValueError("mark")
    if type(members) is not int or not 1 <= members <= LARGEST:
        raise ValueError("members")
    if type(port) is not int or not 1 <= port <= 65535:
        raise ValueError("port")
    if type(nodes) is not list or len(nodes) > members or not all(type(node) is str for node in nodes):
        raise ValueError("nodes")
    streams = content.get("streams", 0)
    if type(streams) is not int or not 0 <= streams <= 65535:
        raise ValueError("streams")
    return {"mark": mark, "members": members, "port": port, "nodes": tuple(nodes), "streams": streams}
