"""Which wash_fl a process runs: its version, and a hash of its source code.

Server and devices must run the same. A version alone does not tell: two checkouts on the way to the next one
have the same.
"""

from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import Final, Self

import wash_fl
from wash_fl.errors import ExchangeError

PACKAGE: Final = Path(wash_fl.__file__).resolve().parent

LABORATORY: Final = "lab"
"""The room that no run needs: its files do not count, and are not shipped."""

REMEDY: Final = "install the same wash_fl on both, or run with wash-fl serve --ship-code"

_DIGITS: Final = 16


@dataclass(frozen=True)
class Sources:
    """A version of wash_fl, and the hash of its source code.

    Attributes
    ----------
    version : str
        Such as ``0.1.0``.
    digest : str
        The first 16 hexadecimal digits of a SHA-256; empty where there are no source files to be read.
    """

    version: str
    digest: str

    @classmethod
    def from_text(cls, text: str) -> Self:
        """Read what :meth:`__str__` writes.

        Raises
        ------
        ExchangeError
            If it is something else.
        """
        parts = text.split(" ")
        if len(parts) != 2 or not parts[0]:
            raise ExchangeError(
                f"a request of a wash_fl that calls itself {text[:40]!r}: update the older side."
            )
        return cls(*parts)

    def __str__(self) -> str:
        return f"{self.version} {self.digest}"

    def difference(self, server: "Sources") -> str:
        """Return how a device's wash_fl, this one, differs from the server's; empty if it does not."""
        if self.version != server.version:
            older = _older(self.version, server.version)
            of_both = f"this device has wash_fl {self.version} and the server {server.version}"
            return f"{of_both}{older and f', so {older} is the older'}"
        if self.digest and server.digest and self.digest != server.digest:
            return (
                f"this device's wash_fl {self.version} has other source code ({self.digest}) than the "
                f"server's wash_fl {server.version} ({server.digest})"
            )
        return ""


def source_files(package: Path = PACKAGE) -> list[Path]:
    """Return the source files that a run needs, sorted by where they are in the package."""
    paths = (path.relative_to(package) for path in package.rglob("*.py"))
    return sorted((path for path in paths if path.parts[0] != LABORATORY), key=Path.as_posix)


def digest_of(package: Path) -> str:
    """Return a hash of a package's source files: their names and what is in them, but for line endings."""
    digest = sha256()
    files = source_files(package)
    for path in files:
        content = (package / path).read_bytes().replace(b"\r\n", b"\n")
        digest.update(f"{path.as_posix()}\0{len(content)}\0".encode())
        digest.update(content)
    return digest.hexdigest()[:_DIGITS] if files else ""


@lru_cache(maxsize=1)
def own_sources() -> Sources:
    """Return which wash_fl this process runs."""
    try:
        return Sources(wash_fl.__version__, digest_of(PACKAGE))
    except OSError:  # somebody may run it, and not read it
        return Sources(wash_fl.__version__, "")


def refuse_other_sources(server: str) -> None:
    """Refuse to work for a server that runs another wash_fl than this device.

    Parameters
    ----------
    server : str
        The server's :class:`Sources` as text; empty if it does not say, as older ones do not.

    Raises
    ------
    ExchangeError
        If it runs another.
    """
    difference = own_sources().difference(Sources.from_text(server)) if server else ""
    if difference:
        raise ExchangeError(f"{difference}: {REMEDY}.")


def _older(device: str, server: str) -> str:
    """Return which of two versions is the older one; empty if that cannot be told."""
    numbers = [_release(device), _release(server)]
    if numbers[0] == numbers[1] or not all(numbers):
        return ""
    return "the device's" if numbers[0] < numbers[1] else "the server's"


def _release(version: str) -> list[int]:
    """Return the leading numbers of a version: 1, 2 and 0 of ``1.2.0rc1``."""
    release: list[int] = []
    for part in version.split("."):
        digits = part[: len(part) - len(part.lstrip("0123456789"))]
        if digits:
            release.append(int(digits))
        if digits != part:
            break
    return release
