"""Tables of bottles for a model of README's wine task: each bottle gets its own answer, or none does."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_wine

from wash_fl.export import Predictor, answer_files, export_onnx
from wash_fl.runs.exporting import card_of
from wash_fl.tasks import initial_model, load_task, tensors_of

ROOT = Path(__file__).resolve().parents[2]
NAMES = tuple(load_wine().feature_names)
HEADER = ",".join(NAMES)
BAROLO = "14.1,2.16,2.3,18,105,2.95,3.32,0.22,2.38,5.75,1.25,3.17,1510"
GRIGNOLINO = "12,0.92,2,19,86,2.42,2.26,0.3,1.43,2.5,1.38,3.12,278"
EMPTY = "," * 12


@pytest.fixture(scope="module")
def predictor(tmp_path_factory):
    """Give the averaged model's stand-in: README's task, trained in this process."""
    folder = tmp_path_factory.mktemp("wine")
    (block,) = re.findall(r"```python\n(# my_task\.py\n.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    (folder / "my_task.py").write_text(block)
    task = load_task(str(folder / "my_task.py"))
    model = initial_model("default", task, 0)
    inputs, targets = tensors_of(task.train_data())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    for _ in range(60):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(inputs), targets).backward()
        optimizer.step()
    card = card_of(task)
    assert card.columns == NAMES and card.normalization is not None
    export_onnx(model.eval(), folder / "wine.onnx", card=card, examples=tensors_of(task.test_data())[0])
    return Predictor(folder / "wine.onnx")


def answered(predictor, folder, *lines):
    (folder / "bottles.csv").write_text("".join(f"{line}\n" for line in lines))
    (reply,) = answer_files(predictor, [folder / "bottles.csv"])
    return reply


def test_two_bottles_have_two_answers_with_names_and_without(predictor, tmp_path):
    for lines in ([HEADER, BAROLO, GRIGNOLINO], [BAROLO, GRIGNOLINO]):
        reply = answered(predictor, tmp_path, *lines)
        assert [each.label for each in reply.answers] == ["barolo", "grignolino"], reply
        assert [each.place["rows"] for each in reply.answers] == [[1, 1], [2, 2]]
        assert reply.warnings == ()


def test_a_row_of_empty_cells_is_refused_with_its_line(predictor, tmp_path):
    reply = answered(predictor, tmp_path, HEADER, BAROLO, EMPTY, GRIGNOLINO)
    assert reply.answers == () and "bottles.csv, line 3 has no reading" in reply.refused


def test_a_header_of_numbers_is_never_answered(predictor, tmp_path):
    for start in (0, 1):
        numbers = ",".join(str(start + index) for index in range(13))
        reply = answered(predictor, tmp_path, numbers, BAROLO, GRIGNOLINO)
        assert reply.answers == () and "bottles.csv, line 1" in reply.refused


def test_columns_in_another_order_have_the_same_answers(predictor, tmp_path):
    def turned(line):
        return ",".join(reversed(line.split(",")))

    straight = answered(predictor, tmp_path, HEADER, BAROLO, GRIGNOLINO)
    assert (
        answered(predictor, tmp_path, *map(turned, (HEADER, BAROLO, GRIGNOLINO))).answers == straight.answers
    )
    # As pandas writes them, with its index.
    rows = [f",{HEADER}", f"0,{BAROLO}", f"1,{GRIGNOLINO}"]
    assert answered(predictor, tmp_path, *rows).answers == straight.answers


def test_a_bottle_in_the_names_of_another_data_set_is_refused(predictor, tmp_path):
    reply = answered(predictor, tmp_path, HEADER.replace("hue", "colour"), BAROLO)
    assert "lacks the model's 'hue'" in reply.refused and "'colour'" in reply.refused


def test_readings_that_are_prepared_twice_or_never_get_a_warning(predictor, tmp_path):
    card = replace(predictor.card, input_range=(-4.0, 4.0))
    raw = np.array([BAROLO.split(",")], dtype=np.float32)
    np.save(tmp_path / "raw.npy", raw)
    predictor.card, original = card, predictor.card
    try:
        (reply,) = answer_files(predictor, [tmp_path / "raw.npy"])
    finally:
        predictor.card = original
    assert len(reply.answers) == 1 and "far outside" in reply.warnings[0]
