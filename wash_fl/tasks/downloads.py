"""Where the data of tasks is kept that has to be downloaded, and why a download failed."""

import os
from pathlib import Path


def data_folder() -> Path:
    """Return ``$WASH_FL_DATA``, or the user's own cache."""
    return Path(os.environ.get("WASH_FL_DATA") or "~/.cache/wash-fl/data").expanduser()


def reason_of(error: Exception) -> str:
    """Return on one line what an error says: torchvision reports each mirror on lines of their own."""
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__
