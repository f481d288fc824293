"""The smartwatch task, tested on people 1 and 2."""

from wash_fl.tasks.smartwatch import (
    CLASSES,
    INPUT_SHAPE,
    NORMALIZATION,
    PREPROCESSING,
    leaving_out,
    model,
)

__all__ = ["CLASSES", "INPUT_SHAPE", "NORMALIZATION", "PREPROCESSING", "model"]

train_data, test_data, member_data = leaving_out(1, 2)
