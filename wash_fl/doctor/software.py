"""Which packages are installed, and whether they are those that wash_fl asks for."""

from collections.abc import Iterable, Iterator, Sequence
from importlib.metadata import PackageNotFoundError, distributions, requires, version
from pathlib import Path
from typing import Final

from wash_fl.checks.finding import Finding
from wash_fl.extras import DISTRIBUTION, install_hint

GPU_FILES: Final = ("/dev/nvidiactl", "/dev/nvhost-gpu", "/dev/nvgpu", "/dev/nvmap")
"""One of them is there if the system drives a GPU of NVIDIA's; the last three are a Jetson's."""


def packages() -> Iterator[Finding]:
    """Check what the extra ``client`` needs: one finding for what is missing, one for wrong versions."""
    try:
        requirements = list(_needed_by_a_client())
    except PackageNotFoundError:
        yield Finding(
            "packages",
            "warning",
            "wash-fl is not installed as a package, so what it needs is not known",
            f"{install_hint('client')}, in a virtual environment",
        )
        return
    versions: list[str] = []
    missing: list[str] = []
    wrong: list[str] = []
    for name, allowed in requirements:
        try:
            here = version(name)
        except PackageNotFoundError:
            missing.append(name)
            continue
        versions.append(f"{name} {here}")
        if not _fits(here, allowed):
            wrong.append(f"{name} {here} (needed: {allowed})")
    if missing:
        yield Finding("packages", "problem", f"missing: {', '.join(missing)}", _how_to_install(missing))
    if wrong:
        yield Finding(
            "versions",
            "problem",
            f"not the versions that wash-fl {version(DISTRIBUTION)} needs: {', '.join(wrong)}",
            f"{install_hint('client', '--upgrade')}; keep Flower's version the same on server and devices",
        )
    if not missing and not wrong:
        yield Finding("packages", "ok", ", ".join([f"{DISTRIBUTION} {version(DISTRIBUTION)}", *versions]))


def torch_build(installed: Iterable[str] | None = None, devices: Sequence[str] = GPU_FILES) -> Finding | None:
    """Check that no CUDA packages lie on a machine without a GPU of NVIDIA's.

    Parameters
    ----------
    installed : iterable of str, optional
        Names of all packages; by default those of this environment.
    devices : sequence of str
        Files of which one is there if there is a GPU.

    Returns
    -------
    Finding or None
        None if torch is not installed.
    """
    if installed is None:
        installed = (each.metadata["Name"] or "" for each in distributions())
    names = {name.lower() for name in installed}
    if "torch" not in names:
        return None
    cuda = sorted(name for name in names if name.startswith("nvidia-"))
    gpu = next((each for each in devices if Path(each).exists()), None)
    if cuda and gpu is None:
        return Finding(
            "PyTorch",
            "warning",
            f"a CUDA build, with {len(cuda)} packages of NVIDIA's, and no GPU: gigabytes for nothing, and "
            "more memory at each start",
            "install a CPU build into a new virtual environment: docs/raspberry-pi.md, step 2",
        )
    return Finding("PyTorch", "ok", f"{'a CUDA build' if cuda else 'no CUDA packages'}; GPU: {gpu or 'none'}")


def _needed_by_a_client() -> Iterator[tuple[str, str]]:
    """Yield name and versions of what the base and the extra ``client`` ask for."""
    for line in requires(DISTRIBUTION) or ():
        requirement, _, marker = (part.strip() for part in line.partition(";"))
        if not marker or marker.replace('"', "'") == "extra == 'client'":
            end = next((at for at, each in enumerate(requirement) if each in "<>=!~ ["), len(requirement))
            yield requirement[:end], requirement[end:].strip()


def _fits(here: str, allowed: str) -> bool:
    try:
        # Flower and onnxruntime bring it; a machine with neither misses more than a version.
        from packaging.specifiers import SpecifierSet
    except ModuleNotFoundError:
        return True
    return SpecifierSet(allowed).contains(here, prereleases=True)


def _how_to_install(missing: Sequence[str]) -> str:
    infers = _is_installed("onnxruntime")
    note = (
        ", which this machine needs to train; it can infer without" if infers and "torch" in missing else ""
    )
    return (
        f"{install_hint('client')}{note}; on a Pi or a Jetson as docs/raspberry-pi.md and docs/jetson.md say"
    )


def _is_installed(name: str) -> bool:
    try:
        version(name)
    except PackageNotFoundError:
        return False
    return True
