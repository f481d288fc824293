"""What the machine is: its Python, its processor, its memory and its disk."""

import os
import platform
import shutil
import struct
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from wash_fl.checks.finding import MEGABYTE, Finding, megabytes

OLDEST: Final = (3, 11)
OLDEST_GLIBC: Final = (2, 28)
"""Of which the wheels for 64-bit Arm are, PyTorch's and numpy's among them."""

ARCHITECTURES: Final = ("aarch64", "arm64", "x86_64", "AMD64")

DISK_NEEDED, DISK_WISHED = 200 * MEGABYTE, 1000 * MEGABYTE
MEMORY_WISHED: Final = 1000 * MEGABYTE
"""Flower's processes, and a ClientApp with PyTorch and a small model: `wash-fl bench memory`."""


@dataclass(frozen=True)
class Memory:
    """A machine's memory, in bytes.

    Attributes
    ----------
    total, available : int
        RAM, and what of it programs can still have.
    swap, swap_free : int
        Room to swap to, on a disk or compressed in RAM.
    """

    total: int
    available: int
    swap: int
    swap_free: int


def python(version: tuple[int, ...] | None = None, implementation: str | None = None) -> Finding:
    """Check that this Python is one that wash_fl and PyTorch run on."""
    version = tuple(sys.version_info[:3]) if version is None else version
    implementation = platform.python_implementation() if implementation is None else implementation
    text = f"{implementation} {'.'.join(map(str, version))}"
    if version[:2] < OLDEST:
        return Finding(
            "Python",
            "problem",
            f"{text}, which is too old",
            "install Python 3.11 or newer beside the system's, and make the virtual environment with it",
        )
    if implementation != "CPython":
        return Finding(
            "Python",
            "problem",
            f"{text}, for which PyTorch has no wheels",
            "make the virtual environment with CPython (the python3 of the system)",
        )
    return Finding("Python", "ok", text)


def architecture(
    machine: str | None = None, bits: int | None = None, libc: tuple[str, str] | None = None
) -> Finding:
    """Check that there are wheels for this processor and system.

    Parameters
    ----------
    machine : str, optional
        The kernel's name of the processor; this machine's by default.
    bits : int, optional
        Of this Python's addresses.
    libc : tuple of str, optional
        The C library and its version.
    """
    machine = platform.machine() if machine is None else machine
    bits = 8 * struct.calcsize("P") if bits is None else bits
    name, version = platform.libc_ver() if libc is None else libc
    text = ", ".join(filter(None, [machine, f"{bits} bits", f"{name} {version}".strip()]))
    if bits != 64:
        mixed = machine in ARCHITECTURES
        return Finding(
            "architecture",
            "problem",
            f"{text}: {'a 32-bit system under a 64-bit kernel' if mixed else 'a 32-bit system'}, for which "
            "PyTorch has no wheels",
            "write the 64-bit image of the system to the card; upgrading does not change it",
        )
    if machine not in ARCHITECTURES:
        return Finding(
            "architecture",
            "warning",
            f"{text}, which nobody has tried",
            "see whether pip finds wheels of torch, numpy and grpcio for it",
        )
    if sys.platform == "linux" and name != "glibc":
        return Finding(
            "architecture",
            "problem",
            f"{text}: not glibc (Alpine's musl, for example), for which PyTorch has no wheels",
            "use a system with glibc: Raspberry Pi OS, Debian, Ubuntu",
        )
    if name == "glibc" and _numbers(version) < OLDEST_GLIBC:
        return Finding(
            "architecture",
            "problem",
            f"{text}: older than glibc 2.28, which the wheels need",
            "install a newer system: Debian 12 or Ubuntu 22.04, or newer",
        )
    return Finding("architecture", "ok", text)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdecimal())


def read_memory(source: Path = Path("/proc/meminfo")) -> Memory | None:
    """Return the machine's memory, or None where the system does not say (it is Linux that does)."""
    try:
        lines = source.read_text(encoding="utf-8").splitlines()
        sizes = {name: int(rest.split()[0]) for name, _, rest in (line.partition(":") for line in lines)}
        fields = ("MemTotal", "MemAvailable", "SwapTotal", "SwapFree")
        return Memory(*(1024 * sizes[name] for name in fields))
    except (OSError, ValueError, IndexError, KeyError):
        return None


def memory(amounts: Memory | None) -> Finding:
    """Check that there is memory for PyTorch and Flower at all; whether the model fits is tried."""
    if amounts is None:
        return Finding(
            "memory",
            "warning",
            "this system does not say how much there is",
            "see that the training step below fits, with 270 MB beside it for Flower",
        )
    text = (
        f"{megabytes(amounts.total)}, of which {megabytes(amounts.available)} are available; "
        f"{megabytes(amounts.swap)} of swap"
    )
    if amounts.available + amounts.swap_free < MEMORY_WISHED:
        return Finding(
            "memory",
            "warning",
            text,
            "stop what the device does not need (a desktop, for example), and add swap or zram: "
            "docs/raspberry-pi.md, docs/jetson.md",
        )
    if amounts.total < 2 * MEMORY_WISHED and not amounts.swap:
        return Finding(
            "memory",
            "warning",
            text,
            "add swap or zram, so that a moment of need does not end the training: docs/raspberry-pi.md",
        )
    return Finding("memory", "ok", text)


def disk(state: Path) -> Finding:
    """Check that a member can be kept on the disk.

    Parameters
    ----------
    state : Path
        The folder of the members' states; it need not exist.
    """
    # Not Path.exists, which raises where a folder above may not be entered.
    place = next(each for each in (state, *state.parents) if os.path.exists(each))  # noqa: PTH110
    # One that is not there yet is made by the service manager, as root.
    needed = os.W_OK | os.X_OK if place == state else os.X_OK
    if not (place.is_dir() and os.access(place, needed)):
        return Finding(
            "disk",
            "problem",
            f"{state}, where members are kept, cannot be written to",
            "run this as the user of the SuperNode (wash-fl), or give the folder to that user: chown",
        )
    free = shutil.disk_usage(place).free
    text = f"{megabytes(free)} free for members in {state}"
    advice = "free some room, or point WASH_FL_STATE to another disk"
    if free < DISK_NEEDED:
        return Finding("disk", "problem", text, advice)
    if free < DISK_WISHED:
        return Finding("disk", "warning", text, advice)
    return Finding("disk", "ok", text)
