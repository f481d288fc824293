"""Started by :mod:`wash_fl.lab.bench.inference`: how long a new process takes to answer, and its memory."""

import json
import sys
import time
from pathlib import Path
from typing import Any

from wash_fl.system.peak import accounted_peak, resident_peak


def measure(model: Path, threads: int, batches: list[int]) -> dict[str, Any]:
    """Import what predicting needs, load a model, and let it answer; in a process that has done nothing else.

    Parameters
    ----------
    model : Path
    threads : int
        Threads that onnxruntime may use.
    batches : list of int
        Batch sizes, in ascending order: the peak of each has those before it in it.

    Returns
    -------
    dict
        ``import_ms`` (of all that predicting needs), ``load_ms`` (of the session) and ``first_ms`` (of the
        first answer, to the smallest batch); the peak of the resident memory in bytes, ``bytes_before_load``
        and ``peak_bytes`` by batch size.
    """
    began = time.perf_counter()
    import numpy as np
    import onnxruntime  # noqa: F401

    from wash_fl.export.inference import Predictor

    imported = time.perf_counter()
    before = peak_bytes()
    loading = time.perf_counter()
    predictor = Predictor(model, threads)
    loaded = time.perf_counter()
    figures = {
        "import_ms": 1000 * (imported - began),
        "load_ms": 1000 * (loaded - loading),
        "bytes_before_load": before,
    }
    peaks: dict[str, int] = {}
    for size in batches:
        inputs = np.zeros((size, *predictor.card.input_shape), dtype=predictor.card.input_dtype)
        start = time.perf_counter()
        predictor.predict(inputs, batch_size=size)
        figures.setdefault("first_ms", 1000 * (time.perf_counter() - start))
        peaks[str(size)] = peak_bytes()
    return figures | {"peak_bytes": peaks}


def peak_bytes() -> int:
    """Return the most memory that this process has had resident so far."""
    # Not getrusage first: on Linux it gives a new process the peak of the one that started it.
    if resident := resident_peak():
        return resident
    import resource

    return accounted_peak(resource.getrusage(resource.RUSAGE_SELF))


if __name__ == "__main__":
    print(json.dumps(measure(Path(sys.argv[1]), int(sys.argv[2]), json.loads(sys.argv[3]))))
