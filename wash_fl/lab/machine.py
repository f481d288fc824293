"""The machine: its cores, and what makes figures measured on it comparable."""

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = ("wash-fl", "flwr", "torch", "numpy", "onnxruntime", "grpcio", "protobuf")

_MEMORY = Path("/dev/shm")


def folder_in_memory() -> Path | None:
    """Return a folder that is in memory, for files that are to cost no time; None where there is none."""
    return _MEMORY if os.access(_MEMORY, os.W_OK) else None


def cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def machine() -> dict[str, Any]:
    """Return the cores, the processor, the system, and the versions that matter."""
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return {
        "cores": os.cpu_count(),
        "cpu": _processor(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": versions,
    }


def _processor() -> str:
    """Return the processor's name; Linux keeps it where :mod:`platform` does not look."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.lower().startswith(("model name", "hardware")):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or "unknown"
