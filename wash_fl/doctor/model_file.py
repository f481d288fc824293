"""Whether a model file answers on this machine as where it was exported."""

from pathlib import Path
from typing import Final

from wash_fl.checks.finding import Finding
from wash_fl.errors import ExportError

NAME: Final = "model file"


def model_file(path: Path) -> Finding:
    """Check the test vectors that a file carries."""
    from wash_fl.export.inference import Predictor
    from wash_fl.export.replay import replay

    try:
        replayed = replay(Predictor(path))
    except ExportError as error:
        return Finding(NAME, "problem", str(error).rstrip("."), "wash-fl export RUN, and copy the file again")
    if replayed.problem:
        return Finding(NAME, "problem", replayed.problem, replayed.advice)
    return Finding(NAME, "ok", f"{path}: {replayed.summary}")
