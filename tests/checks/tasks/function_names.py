"""Class names out of a set: another order in every process."""

from good import INPUT_SHAPE, model, test_data, train_data  # noqa: F401

CLASSES = tuple({"left", "middle", "right"})
