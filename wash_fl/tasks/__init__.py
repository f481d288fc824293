"""Ready pairs of data and model, and the one interface that they and a user's own task share."""

from wash_fl.tasks.augment import Augmentation
from wash_fl.tasks.division import fetch, labels_of, member_examples, select, tensors_of, test_examples
from wash_fl.tasks.models import MODELS, build_model, initial_model
from wash_fl.tasks.task import BUILT_IN, Examples, Loss, Task, load_task

__all__ = [
    "BUILT_IN",
    "MODELS",
    "Augmentation",
    "Examples",
    "Loss",
    "Task",
    "build_model",
    "fetch",
    "initial_model",
    "labels_of",
    "load_task",
    "member_examples",
    "select",
    "tensors_of",
    "test_examples",
]
