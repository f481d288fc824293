"""Inputs that cannot be, or hardly can be, what a model was trained on: refused, or a warning."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from wash_fl.errors import ExportError
from wash_fl.export import ModelCard, Normalization, Predictor, answer_files, evaluate_onnx, load_inputs
from wash_fl.export.inputs import read_examples

PICTURES = ModelCard(
    classes=("cat", "dog", "owl"),
    input_shape=(3, 4, 5),
    preprocessing="ToTensor, then Normalize",
    normalization=Normalization(mean=(0.49, 0.48, 0.45), std=(0.25, 0.24, 0.26)),
)
BYTES = np.random.default_rng(1).integers(0, 256, (9, 3, 4, 5), dtype=np.uint8)
PREPARED = PICTURES.normalization.apply(BYTES / np.float32(255))
SENSOR = ModelCard(
    classes=("rest", "move"),
    input_shape=(2, 3),
    normalization=Normalization(mean=(0.0,), std=(0.5,)),
    input_range=(-4.0, 4.0),
)
TOKENS = ModelCard(classes=("even", "odd"), input_shape=(4,), input_type="int64", input_range=(0.0, 49.0))
UNKNOWN = replace(PICTURES, normalization=None, input_range=(0.0, 1.0))


def saved(folder, array):
    np.save(folder / "a.npy", array)
    return folder / "a.npy"


def refusal(function, *args):
    with pytest.raises(ExportError) as caught:
        function(*args)
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


# Refused: the card says what pixels become


@pytest.mark.parametrize(
    "inputs",
    [
        BYTES.astype(np.float32),
        PICTURES.normalization.apply(BYTES.astype(np.float32)),
        -PREPARED,
        PREPARED * np.float32(1.05),
    ],
    ids=["bytes", "bytes prepared", "inverted", "another std"],
)
def test_arrays_outside_what_pixels_become_are_refused_with_both_ranges(tmp_path, inputs):
    message = refusal(read_examples, saved(tmp_path, inputs), PICTURES)
    assert "a.npy run from" in message and "is given from" in message and "--raw-inputs" in message
    assert "'ToTensor, then Normalize'" in message


def test_the_message_has_the_numbers_of_the_channel(tmp_path):
    inputs = PREPARED.copy()
    inputs[4, 1, 2, 3] = 9
    message = refusal(read_examples, saved(tmp_path, inputs), PICTURES)
    assert "to 9 in channel 1" in message and "from -2 to 2.167" in message


def test_one_mean_for_all_channels_is_that_of_each(tmp_path):
    card = replace(PICTURES, normalization=Normalization(mean=(0.5,), std=(0.25,)))
    inputs = card.normalization.apply(BYTES / np.float32(255))
    np.testing.assert_array_equal(read_examples(saved(tmp_path, inputs), card).inputs, inputs)
    assert "from -2 to 2:" in refusal(read_examples, saved(tmp_path, inputs + 1), card)


def test_prepared_pictures_of_black_and_white_pass_whatever_rounds(tmp_path):
    ends = PICTURES.normalization.apply(np.array([0, 1], np.float32).reshape(2, 1, 1, 1).repeat(3, axis=1))
    inputs = ends * np.ones((2, 3, 4, 5), np.float32)
    for almost in (inputs, np.nextafter(inputs, np.float32(9)), np.nextafter(inputs, np.float32(-9))):
        assert len(read_examples(saved(tmp_path, almost), PICTURES).inputs) == 2


def test_arrays_in_memory_are_refused_where_they_are_far_outside(tmp_path, write_model):
    write_model(tmp_path / "model.onnx", PICTURES)
    predictor = Predictor(tmp_path / "model.onnx")
    raw = BYTES.astype(np.float32)
    assert "the inputs run from 0 to 2" in refusal(predictor.predict, raw)
    assert "the inputs run from" in refusal(evaluate_onnx, predictor.path, raw, np.zeros(9, int))
    # A test set of pictures that bicubic scaling has carried a little outside is the model's own.
    assert len(predictor.predict(PREPARED * np.float32(1.05)).labels) == 9


def test_pictures_and_raw_bytes_are_never_outside(tmp_path, write_model):
    raw = replace(PICTURES, raw_inputs=True)
    np.testing.assert_array_equal(load_inputs([saved(tmp_path, BYTES)], raw), BYTES)
    Image.fromarray(BYTES[0].transpose(1, 2, 0)).save(tmp_path / "a.png")
    np.testing.assert_allclose(load_inputs([tmp_path / "a.png"], PICTURES), PREPARED[:1], rtol=1e-6)


# A warning: the card says what the file was checked on


@pytest.mark.parametrize(
    ("card", "array", "part"),
    [
        (UNKNOWN, BYTES.astype(np.float32), "far outside"),
        (UNKNOWN, np.full((1, 3, 4, 5), -1.5, np.float32), "60 of 60 values are far outside"),
        (replace(UNKNOWN, input_range=(0.0, 255.0)), BYTES / np.float32(255), "hardly differ"),
        (SENSOR, np.full((1, 2, 3), 9.81 * 2, np.float32), "run from 19.62 to 19.62"),
        (SENSOR, np.linspace(0, 13, 6, dtype=np.float32).reshape(2, 3), "1 of 6 values"),
        (replace(SENSOR, raw_inputs=True), np.full((1, 2, 3), 6.5, np.float32), "run from 13 to 13"),
        (TOKENS, np.array([1, 2, 3, -1]), "1 of 4 values"),
        (TOKENS, np.array([1, 2, 3, 101]), "checked on 0 to 49"),
        (replace(SENSOR, input_range=(1.0, 1.0)), np.full((1, 2, 3), 3.0, np.float32), "checked on 1 to 1"),
    ],
)
def test_values_far_from_what_the_file_was_checked_on_get_a_warning_and_answers(tmp_path, card, array, part):
    examples = read_examples(saved(tmp_path, array), card)
    (warning,) = examples.warnings
    assert part in warning and "\n" not in warning, warning
    np.testing.assert_array_equal(examples.inputs.reshape(array.shape), array)
    with pytest.warns(UserWarning, match=r"a\.npy: .*the model was checked on"):
        load_inputs([saved(tmp_path, array)], card)


@pytest.mark.parametrize(
    ("card", "array"),
    [
        (UNKNOWN, BYTES / np.float32(255)),
        (UNKNOWN, PREPARED.clip(-1, 2)),
        (replace(PICTURES, input_range=(0.0, 0.1)), PREPARED),
        (SENSOR, np.full((1, 2, 3), -11.9, np.float32)),
        (replace(SENSOR, input_range=(1.0, 1.0)), np.full((1, 2, 3), 1.5, np.float32)),
        (SENSOR, np.zeros((1, 2, 3), np.float32)),
        (replace(SENSOR, raw_inputs=True), np.full((1, 2, 3), 5.9, np.float32)),
        (TOKENS, np.array([0, 49, 60, 1])),
        (replace(TOKENS, input_range=None), np.array([-7, 49, 60, 1])),
        (replace(TOKENS, input_range=(-3.0, 3.0)), np.array([-5, 1, 1, 1])),
        (replace(SENSOR, input_range=None), np.full((1, 2, 3), 1e6, np.float32)),
    ],
)
def test_values_about_as_those_it_was_checked_on_pass_without_a_word(tmp_path, card, array):
    assert read_examples(saved(tmp_path, array), card).warnings == ()


def test_readings_in_another_unit_get_the_warning_too(tmp_path):
    (tmp_path / "g.csv").write_text("0.1,1\n0.2,-1.5\n0,1\n")
    (tmp_path / "ms2.csv").write_text("0.98,9.81\n1.96,-14.7\n0,9.8\n")
    assert read_examples(tmp_path / "g.csv", SENSOR).warnings == ()
    (warning,) = read_examples(tmp_path / "ms2.csv", SENSOR).warnings
    assert warning.startswith("3 of 6 values are far outside") and "the card's normalization" in warning
    (tmp_path / "tokens.csv").write_text("1,2,3,-4\n")
    assert "1 of 4 values" in read_examples(tmp_path / "tokens.csv", TOKENS).warnings[0]


def test_warnings_stay_with_their_file(tmp_path, write_model):
    write_model(tmp_path / "model.onnx", SENSOR)
    (tmp_path / "odd.csv").write_text("99,1\n" * 3)
    (tmp_path / "good.csv").write_text("1,1\n" * 3)
    files = [tmp_path / name for name in ("good.csv", "odd.csv", "absent.csv")]
    answered = list(answer_files(Predictor(tmp_path / "model.onnx"), files))
    assert [len(each.warnings) for each in answered] == [0, 1, 0]
    assert [len(each.answers) for each in answered] == [1, 1, 0]
