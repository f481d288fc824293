"""Make the data of the task `digits` from scikit-learn, whose import takes a device seconds.

python tools/convert_digits.py wash_fl/tasks/data/digits.json
"""

import sys
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits

from wash_fl.tasks import bundled

ABOUT = "Handwritten digits, from scikit-learn: see digits.md."


def main() -> None:
    """Write the file that is named."""
    if len(sys.argv) != 2:
        sys.exit("usage: python tools/convert_digits.py DIGITS.json")
    digits = load_digits()
    arrays = {"images": digits.images.astype(np.uint8), "classes": digits.target.astype(np.uint8)}
    bundled.write(Path(sys.argv[1]), ABOUT, arrays)


if __name__ == "__main__":
    main()
