"""Where the data of tasks is kept that has to be downloaded."""

import os
from pathlib import Path


def data_folder() -> Path:
    """Return ``$WASH_FL_DATA``, or the user's own cache."""
    return Path(os.environ.get("WASH_FL_DATA") or "~/.cache/wash-fl/data").expanduser()
