"""Files of one JSON object per line, appended as things happen: a line may be lost, and no other with it."""

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO


def json_lines(path: Path) -> Iterator[dict[str, Any] | None]:
    """Yield the objects of a file; None for a line that is none, whatever it holds instead."""
    try:
        lines = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        return
    for line in filter(None, lines):
        try:
            content = json.loads(line)
        except (ValueError, RecursionError):  # cut short, zeros after a power cut, no text at all
            content = None
        yield content if isinstance(content, dict) else None


def append_line(path: Path, fields: Mapping[str, Any]) -> None:
    """Append an object to such a file: one line, written at once."""
    line = json.dumps(fields, allow_nan=False) + "\n"
    with path.open("ab+") as file:
        if file.tell() and not _ends_a_line(file):
            line = "\n" + line  # a crash cut the last one short; this one must not be lost with it
        file.write(line.encode())


def _ends_a_line(file: BinaryIO) -> bool:
    file.seek(-1, os.SEEK_END)
    return file.read(1) == b"\n"
