"""How much memory a device needs: to train, to infer, and for Flower beside it."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any, Final

from wash_fl.config import RunConfig
from wash_fl.deploy import processes
from wash_fl.doctor.training import try_steps
from wash_fl.errors import RunError
from wash_fl.system.peak import private, resident_peak, watch

MODEL: Final = "mobilenet-v3-small"
BATCH: Final = 16
SIDES: Final = (32, 224)
"""Of square RGB images: small ones, and the model's own."""

ANSWERS: Final = 20
SECONDS: Final = 600.0
SETTLED_SECONDS: Final = 4.0
"""So long Flower's processes must not have grown before they count as started."""

MEGABYTE: Final = 1_000_000

_SAY: Final = """
with open("/proc/self/status") as status:
    sizes = dict(line.split(":") for line in status)
print("\\n", *(1024 * int(sizes[name].split()[0]) for name in ("VmHWM", "RssAnon")))
"""

_EXPORT: Final = """
from wash_fl.lab.bench.memory import export_model
export_model({side}, {path!r})
"""

_INFER: Final = """
import numpy as np
from wash_fl.export.inference import Predictor
predictor = Predictor({path!r})
image = np.zeros((1, 3, {side}, {side}), dtype=np.float32)
for _ in range({answers}):
    predictor.predict(image)
"""

Figure = dict[str, float]


def run(sides: tuple[int, ...] = SIDES) -> dict[str, Any]:
    """Measure each part in a process of its own.

    Parameters
    ----------
    sides : tuple of int
        Of the images, in pixels.

    Returns
    -------
    dict
        For each part ``peak``, the megabytes that it had in RAM at most, libraries among them; ``private``,
        those of them at the end that are not pages of files; and for steps ``ms``. ``flower`` adds up the
        SuperNode and its launcher, ``device_training_...`` them and the ClientApp that trains.
        ``skipped`` says which part was not measured for want of a package.

    Raises
    ------
    RunError
        If the system does not say what a process needs (Linux does), or a part fails.
    """
    if not resident_peak():
        raise RunError("this system does not say how much memory a process has: measure on Linux.")
    parts: dict[str, tuple[tuple[str, ...], Callable[[], Mapping[str, Figure]]]] = {
        "python": ((), lambda: {"python": _python("")}),
        "import_torch": (("torch",), lambda: {"import_torch": _python("import torch")}),
        "flower": (("flwr",), _flower),
        "train": (("torch", "flwr", "torchvision"), lambda: _train(sides)),
        "infer": (("torch", "torchvision", "onnx", "onnxscript", "onnxruntime"), lambda: _infer(sides)),
    }
    figures: dict[str, Any] = {"model": MODEL, "batch": BATCH}
    skipped = {}
    for part, (packages, measure) in parts.items():
        missing = [each for each in packages if find_spec(each) is None]
        if missing:
            skipped[part] = f"not installed: {', '.join(missing)}"
        else:
            figures |= measure()
    for side in sides:
        trained = figures.get(f"train_{side}x{side}")
        if trained and "flower" in figures:
            figures[f"device_training_{side}x{side}"] = _sum(figures["flower"], trained)
    return figures | ({"skipped": skipped} if skipped else {})


def export_model(side: int, path: str) -> None:
    """Export the model, untrained, to ONNX.

    Parameters
    ----------
    side : int
        Of its square inputs.
    path : str
        Where the file goes.
    """
    import torch

    from wash_fl.export import ModelCard, export_onnx
    from wash_fl.tasks.task import import_extra

    torch.manual_seed(0)
    zoo = import_extra("torchvision.models", "bench memory")
    card = ModelCard(classes=tuple(map(str, range(10))), input_shape=(3, side, side))
    export_onnx(
        zoo.mobilenet_v3_small(weights=None, num_classes=10).eval(),
        path,
        card=card,
        examples=torch.rand(2, 3, side, side),
    )


def _python(code: str, what: str = "a part") -> Figure:
    """Run code in an interpreter of its own."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    result = watch([sys.executable, "-c", code + _SAY], timeout=SECONDS, environment=environment)
    if result.status != 0:
        last = (result.err.strip().splitlines() or ["it said nothing"])[-1]
        raise RunError(f"{what} could not be measured (status {result.status}): {last.rstrip('.')}.")
    peak, own = map(int, result.out.split()[-2:])
    return {"peak": peak / MEGABYTE, "private": own / MEGABYTE}


def _train(sides: tuple[int, ...]) -> dict[str, Figure]:
    config = RunConfig.from_mapping({"model": MODEL, "batch-size": BATCH})
    figures = {}
    for side in sides:
        trial = try_steps(config, stand_in=(3, side, side), timeout=SECONDS)
        if trial.process.status != 0:
            why = (
                trial.facts.get("refused") or trial.process.err.strip()[-200:] or trial.facts.get("no_memory")
            )
            raise RunError(f"training failed while {trial.at} (status {trial.process.status}): {why}.")
        figures[f"train_{side}x{side}"] = {
            "peak": trial.facts["peak"] / MEGABYTE,
            "private": trial.facts["private"] / MEGABYTE,
            "ms": 1000 * median(trial.facts["seconds"]),
        }
    return figures


def _infer(sides: tuple[int, ...]) -> dict[str, Figure]:
    figures = {}
    with tempfile.TemporaryDirectory() as folder:
        for side in sides:
            path = str(Path(folder) / f"{side}.onnx")
            _python(_EXPORT.format(side=side, path=path), "the export")
            code = _INFER.format(side=side, path=path, answers=ANSWERS)
            figures[f"infer_{side}x{side}"] = _python(code, "inference")
    return figures


def _flower() -> dict[str, Figure]:
    """Measure a SuperNode that looks for its SuperLink in vain, its launcher, and an empty ClientApp."""
    with _supernode() as (supernode, superexec):
        figures = {
            name: {"peak": resident_peak(pid) / MEGABYTE, "private": private(pid) / MEGABYTE}
            for name, pid in (("flower_supernode", supernode), ("flower_superexec", superexec))
        }
    figures["flower"] = _sum(*figures.values())
    return figures | {"flower_clientapp": _python("import flwr.clientapp, flwr.supernode.cli", "a ClientApp")}


@contextmanager
def _supernode() -> Iterator[tuple[int, int]]:
    """Start a SuperNode, wait until it and its launcher grow no more, and stop them again."""
    nobody, port = processes.free_port(), processes.free_port()
    command = ["flower-supernode", "--insecure", "--superlink", f"127.0.0.1:{nobody}", "--port", str(port)]
    with tempfile.TemporaryDirectory() as home:
        log = Path(home) / "supernode.log"
        process = processes.start(command, processes.flower_environment(Path(home), home), log)
        try:
            yield process.pid, _wait_for_launcher(process, log)
        finally:
            # Its launcher is in its session, and would outlive it. Neither has anything to put in order.
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _wait_for_launcher(process: "subprocess.Popen[bytes]", log: Path) -> int:
    deadline = time.monotonic() + processes.START_SECONDS
    before, since = (0, 0), time.monotonic()
    while time.monotonic() < deadline and process.poll() is None:
        launcher = next(_children(process.pid), 0)
        sizes = resident_peak(process.pid), resident_peak(launcher) if launcher else 0
        if not launcher or sizes != before:
            before, since = sizes, time.monotonic()
        elif time.monotonic() - since > SETTLED_SECONDS:
            return launcher
        time.sleep(0.2)
    raise RunError(f"Flower's SuperNode could not be measured: {processes.last_words(log)}.")


def _children(pid: int) -> Iterator[int]:
    for status in Path("/proc").glob("[0-9]*/status"):
        with suppress(OSError):
            if f"\nPPid:\t{pid}\n" in status.read_text(encoding="utf-8"):
                yield int(status.parent.name)


def _sum(*figures: Figure) -> Figure:
    return {name: sum(each[name] for each in figures) for name in ("peak", "private")}
