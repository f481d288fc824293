"""Tests of the digits task."""

import subprocess
import sys
from collections import Counter
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from wash_fl.errors import DataError
from wash_fl.tasks import bundled, digits, initial_model, labels_of, load_task, tensors_of

torch.set_num_threads(1)


def rows(*parts):
    return Counter(
        (image.numpy().tobytes(), int(label))
        for part in parts
        for image, label in zip(*tensors_of(part), strict=True)
    )


def test_train_and_test_are_all_the_examples_once():
    original = load_digits()
    expected = Counter(
        ((image / 16).astype(np.float32).tobytes(), int(label))
        for image, label in zip(original.images, original.target, strict=True)
    )
    assert rows(digits.train_data(), digits.test_data()) == expected


def test_inputs_are_scaled_floats_and_each_class_has_its_share():
    inputs, targets = tensors_of(digits.test_data())
    assert inputs.shape == (360, *digits.INPUT_SHAPE)
    assert (inputs.dtype, targets.dtype) == (torch.float32, torch.int64)
    assert (inputs.min(), inputs.max()) == (0, 1)
    share = 360 / 1797 * np.bincount(load_digits().target)
    assert np.abs(np.bincount(labels_of(digits.test_data())) - share).max() < 1


def test_the_split_is_the_same_for_ever():
    golden = "af715860"
    assert sha256(labels_of(digits.test_data()).astype("<i8").tobytes()).hexdigest()[:8] == golden


def test_it_asks_for_no_package_beside_torch():
    program = (
        "import sys; from wash_fl.tasks import digits; digits.train_data(); print('sklearn' in sys.modules)"
    )
    output = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    ).stdout
    assert output.strip() == "False"


def test_its_file_is_what_the_tool_makes(tmp_path):
    script = Path(digits.__file__).parents[2] / "tools" / "convert_digits.py"
    subprocess.run([sys.executable, script, tmp_path / "digits.json"], check=True)
    names = ("images", "classes")
    new, own = (bundled.read(path, *names)[0] for path in (tmp_path / "digits.json", digits.DATA_FILE))
    for one, other in zip(new, own, strict=True):
        np.testing.assert_array_equal(one, other)


IMAGES, LABELS = np.zeros((3, 8, 8), np.uint8), np.zeros(3, np.uint8)


@pytest.mark.parametrize(
    ("images", "classes"),
    [
        (IMAGES[:, :7], LABELS),
        (IMAGES, LABELS[:2]),
        (IMAGES[:0], LABELS[:0]),
        (IMAGES.astype(float), LABELS),
        (IMAGES, LABELS.astype(np.int8)),
        (IMAGES + 17, LABELS),
        (IMAGES, LABELS + 10),
    ],
)
def test_a_file_of_something_else_is_refused_by_name(tmp_path, monkeypatch, refused, images, classes):
    monkeypatch.setattr(digits, "DATA_FILE", tmp_path / "digits.json")
    bundled.write(digits.DATA_FILE, "other", {"images": images, "classes": classes})
    with refused(DataError, str(digits.DATA_FILE), "damaged", "install wash-fl again"):
        digits.train_data()


def test_the_default_model_learns_it_in_a_hundred_steps():
    model = initial_model("default", load_task("digits"), 0)
    inputs, targets = tensors_of(digits.train_data())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    for step in range(100):
        batch = torch.arange(step * 32, step * 32 + 32) % len(inputs)
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(inputs[batch]), targets[batch]).backward()
        optimizer.step()
    inputs, targets = tensors_of(digits.test_data())
    with torch.no_grad():
        accuracy = (model.eval()(inputs).argmax(1) == targets).float().mean()
    assert accuracy > 0.9
