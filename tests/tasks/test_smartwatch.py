"""Tests of the smartwatch task: who is tested on, who trains on whom, and what a data file must be."""

import pickle
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
import torch

from tools.convert_smartwatch import CHANNELS, EXERCISES, convert, read, write
from wash_fl.checks.run import check
from wash_fl.config import RunConfig
from wash_fl.errors import ConfigError, DataError
from wash_fl.export import ModelCard, export_onnx, load_inputs
from wash_fl.runs.exporting import card_of
from wash_fl.tasks import bundled, initial_model, labels_of, load_task, smartwatch, tensors_of
from wash_fl.tasks.smartwatch import CLASSES, INPUT_SHAPE, PEOPLE, TEST_PEOPLE, WINDOW, leaving_out

torch.set_num_threads(1)

TRAIN_PEOPLE = PEOPLE[:8]

ROOT = Path(__file__).resolve().parents[2]


def windows(*parts):
    return [window.numpy().tobytes() for part in parts for window in tensors_of(part)[0]]


@pytest.mark.parametrize("part", [smartwatch.train_data, smartwatch.test_data])
def test_windows_are_normalised_floats_of_every_class(part):
    inputs, targets = tensors_of(part())
    assert inputs.shape[1:] == INPUT_SHAPE
    assert (inputs.dtype, targets.dtype) == (torch.float32, torch.int64)
    assert set(targets.tolist()) == set(range(len(CLASSES)))
    for sensor in (inputs[:, :3], inputs[:, 3:]):
        assert 0.9 < sensor.square().mean().sqrt() < 1.1


def test_nobody_is_both_trained_and_tested_on():
    people = {person for person, _, _ in smartwatch.read_series(smartwatch.DATA_FILE)}
    assert set(TRAIN_PEOPLE) | set(TEST_PEOPLE) == people == set(PEOPLE)
    assert not set(TRAIN_PEOPLE) & set(TEST_PEOPLE)
    assert not set(windows(smartwatch.train_data())) & set(windows(smartwatch.test_data()))


def test_others_may_be_left_out_instead(refused):
    train_data, test_data, member_data = leaving_out(1, 2)
    assert windows(test_data()) == windows(smartwatch.examples_of([1, 2], stride=WINDOW))
    rest = [smartwatch.examples_of([person], stride=WINDOW // 2) for person in PEOPLE[2:]]
    assert windows(train_data()) == windows(*rest)
    assert windows(*(member_data(member, 8) for member in range(8))) == windows(*rest)
    for people in ((), (0, 1), PEOPLE):
        with refused(ConfigError, "cannot be left out", str(sorted(people))):
            leaving_out(*people)


def test_everyone_did_every_exercise_with_either_arm():
    series = smartwatch.read_series(smartwatch.DATA_FILE)
    sets = sorted((person, exercise) for person, exercise, _ in series)
    assert sets == [(person, each) for person in range(1, 11) for each in range(7) for _ in range(2)]


@pytest.mark.parametrize("members", [2, 3, 8])
def test_members_have_the_training_people_among_them_and_everyone_once(members):
    parts = [smartwatch.member_data(member, members) for member in range(members)]
    assert sorted(windows(*parts)) == sorted(windows(smartwatch.train_data()))
    assert all(set(labels_of(part)) == set(range(len(CLASSES))) for part in parts)


def test_with_as_many_members_as_people_each_is_one_person():
    for member, person in enumerate(TRAIN_PEOPLE):
        own = smartwatch.examples_of([person], stride=WINDOW // 2)
        assert windows(smartwatch.member_data(member, len(TRAIN_PEOPLE))) == windows(own)


def test_windows_overlap_by_half_in_training_and_not_in_the_test():
    _, _, first = smartwatch.read_series(smartwatch.DATA_FILE)[0]
    scale = np.array([smartwatch.ACCELERATION] * 3 + [smartwatch.ROTATION] * 3, dtype=np.float32)
    for stride in (WINDOW // 2, WINDOW):
        inputs, _ = tensors_of(smartwatch.examples_of([1], stride=stride))
        expected = (first[stride : stride + WINDOW] / scale).T
        np.testing.assert_array_equal(inputs[1].numpy(), expected)
    assert windows(smartwatch.test_data()) == windows(smartwatch.examples_of(TEST_PEOPLE, stride=WINDOW))
    assert windows(smartwatch.train_data()) == windows(
        smartwatch.examples_of(TRAIN_PEOPLE, stride=WINDOW // 2)
    )


def test_the_examples_are_the_same_for_ever():
    digest = sha256()
    for part in (smartwatch.train_data(), smartwatch.test_data(), smartwatch.member_data(1, 4)):
        inputs, targets = tensors_of(part)
        digest.update(inputs.numpy().astype("<f4").tobytes() + targets.numpy().astype("<i8").tobytes())
    assert digest.hexdigest()[:16] == "775bfc7a6b194b5a"


def test_people_that_are_not_there_are_refused(refused):
    for people in ([11], []):
        with refused(ConfigError, str(people), "[1, 2, 3, 4, 5, 6, 7, 8, 9, 10]"):
            smartwatch.examples_of(people, stride=WINDOW)


def test_preflight_passes_and_refuses_what_does_not_fit(refused):
    check(RunConfig.from_mapping({"task": "smartwatch", "members": 8}))
    for options, parts in (
        ({"members": 9}, ["members = 9", "'smartwatch'", "Use 8 or fewer"]),
        ({"division": "iid"}, ["division = 'iid'", "'smartwatch'", "member_data", "leave it out"]),
        ({"model": "small-cnn"}, ["'small-cnn'", "(6, 125)", "use model = 'default'"]),
        ({"augment": "grid"}, ["augment = 'grid'", "(6, 125)", "use augment = 'none'"]),
    ):
        with refused(ConfigError, *parts):
            check(RunConfig.from_mapping({"task": "smartwatch", **options}))


def test_the_default_model_knows_exercises_of_unseen_people_after_a_hundred_steps():
    model = initial_model("default", load_task("smartwatch"), 0)
    inputs, targets = tensors_of(smartwatch.train_data())
    order = torch.randperm(len(inputs), generator=torch.Generator().manual_seed(0))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    for step in range(100):
        batch = order[torch.arange(step * 32, step * 32 + 32) % len(inputs)]
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(inputs[batch]), targets[batch]).backward()
        optimizer.step()
    inputs, targets = tensors_of(smartwatch.test_data())
    with torch.no_grad():
        accuracy = (model.eval()(inputs).argmax(1) == targets).float().mean()
    assert np.bincount(targets).max() / len(targets) < 0.2
    assert accuracy > 0.45


def test_the_default_model_answers_alike_in_onnx(tmp_path):
    model = initial_model("default", load_task("smartwatch"), 0).eval()
    card = ModelCard(classes=CLASSES, input_shape=INPUT_SHAPE, preprocessing=smartwatch.PREPROCESSING)
    inputs, _ = tensors_of(smartwatch.test_data())
    parity = export_onnx(model, tmp_path / "watch.onnx", card=card, examples=inputs[:9])
    assert parity.largest_difference < 1e-4


def test_a_device_makes_of_a_csv_of_readings_what_the_model_was_trained_on(tmp_path):
    readings = [samples for person, _, samples in smartwatch.read_series(smartwatch.DATA_FILE) if person == 9]
    lines = "\n".join(",".join(map(str, sample)) for sample in readings[0].tolist())
    (tmp_path / "watch.csv").write_text(f"{','.join(CHANNELS)}\n{lines}\n")
    card = card_of(load_task("smartwatch"))
    assert list(card.columns) == CHANNELS
    read = load_inputs([tmp_path / "watch.csv"], card)
    expected, _ = tensors_of(smartwatch.examples_of([9], stride=WINDOW))
    assert len(read) == len(readings[0]) // WINDOW > 1
    np.testing.assert_array_equal(read, expected[: len(read)].numpy())
    # As a logger may have it: a time, and the channels in another order.
    turned = "\n".join(
        f"{index},{','.join(map(str, sample[::-1]))}" for index, sample in enumerate(readings[0].tolist())
    )
    (tmp_path / "turned.csv").write_text(f"time,{','.join(CHANNELS[::-1])}\n{turned}\n")
    np.testing.assert_array_equal(load_inputs([tmp_path / "turned.csv"], card), read)


def test_its_parameters_are_registered_in_the_order_of_depth():
    names = [name for name, _ in smartwatch.model().named_parameters() if name.endswith("weight")]
    assert names == [f"{each}.weight" for each in ("conv1", "bn1", "conv2", "bn2", "conv3", "bn3", "fc")]


def write_changed(path, **changes):
    """Write the data file with other arrays or other values beside them."""
    names = ("samples", "length", "person", "exercise")
    arrays, values = bundled.read(smartwatch.DATA_FILE, *names)
    values = {key: values[key] for key in ("hertz", "steps_per_unit")}
    arrays = dict(zip(names, arrays, strict=True))
    for key, value in changes.items():
        (arrays if key in arrays else values)[key] = value
    bundled.write(path, "changed", arrays, **values)


DAMAGED = {
    "no rate": ({"hertz": None}, "None Hz"),
    "another rate": ({"hertz": 50}, "50 Hz"),
    "no unit": ({"steps_per_unit": 0}, "0 steps per unit"),
    "a word for a unit": ({"steps_per_unit": "cm"}, "cm steps per unit"),
    "floats": ({"samples": np.zeros((9, 6))}, "float64 and shape .9, 6."),
    "five channels": ({"samples": np.zeros((9, 5), np.int16)}, "int16 and shape .9, 5."),
    "too few people": ({"person": np.ones(139, int)}, "for each series"),
    "other lengths": ({"length": np.full(140, 900)}, "other lengths than it says"),
    "short series": ({"length": np.r_[124, np.full(139, 900)]}, "shorter than a window"),
    "an eighth exercise": ({"exercise": np.full(140, 7)}, "none of CLASSES"),
    "a stranger": ({"person": np.full(140, 11)}, "other people"),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_a_damaged_data_file_is_refused_by_name(tmp_path, monkeypatch, case):
    changes, message = DAMAGED[case]
    path = tmp_path / "smartwatch.json"
    write_changed(path, **changes)
    monkeypatch.setattr(smartwatch, "DATA_FILE", path)
    with pytest.raises(DataError, match=message) as raised:
        smartwatch.train_data()
    assert str(path) in str(raised.value) and "install wash-fl again" in str(raised.value)


def test_a_missing_data_file_is_refused_by_name(tmp_path, monkeypatch, refused):
    monkeypatch.setattr(smartwatch, "DATA_FILE", tmp_path / "nowhere.json")
    with refused(DataError, str(tmp_path / "nowhere.json"), "No such file", "install wash-fl again"):
        smartwatch.test_data()


def source(people=tuple(range(1, 11)), samples=2 * WINDOW + 1):
    """Return a small set in the form of seglearn's, its series in no order."""
    generator = np.random.default_rng(0)
    rows = [(person, exercise, side) for side in (1, 0) for exercise in range(7) for person in people]
    person, exercise, side = np.array(generator.permutation(rows)).T
    return {
        "X": [generator.normal(size=(samples, 6)) for _ in rows],
        "y": exercise,
        "subject": person,
        "side": side.astype(float),
        "X_labels": CHANNELS,
        "y_labels": EXERCISES,
    }


def save(path, content):
    array = np.empty((), dtype=object)
    array[()] = content
    np.save(path, array)
    return path


def test_what_is_converted_is_read_back_to_a_hundredth(tmp_path):
    data = source()
    write(convert(read(save(tmp_path / "watch.npy", data))), tmp_path / "watch.json")
    series = smartwatch.read_series(tmp_path / "watch.json")
    assert [each[:2] for each in series] == sorted(
        zip(data["subject"].tolist(), data["y"].tolist(), strict=True)
    )
    halves = np.sort([(each[:-1:2] + each[1::2]).sum() / 2 for each in data["X"]])
    sums = np.sort([samples.sum(dtype=np.float64) for _, _, samples in series])
    np.testing.assert_allclose(sums, halves, atol=0.005 * WINDOW * 6)
    (first,) = [
        data["X"][i] for i in range(140) if (data["subject"][i], data["y"][i], data["side"][i]) == (1, 0, 0)
    ]
    np.testing.assert_allclose(series[0][2], (first[:-1:2] + first[1::2]) / 2, atol=0.0051)


def test_the_same_source_is_the_same_file(tmp_path):
    for name in ("one", "two"):
        write(convert(source()), tmp_path / name)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"X_labels": ["ax"]}, "X_labels is"),
        ({"y_labels": EXERCISES[::-1]}, "y_labels is"),
        ({"X": None}, "not a list"),
        ({"X": [np.zeros((9, 5))] * 140}, r"series 0 has shape \(9, 5\)"),
        ({"X": [np.zeros(9)] * 140}, r"series 0 has shape \(9,\)"),
        ({"X": [np.zeros((9, 6), np.float32)] * 140}, "series 0 is not"),
        ({"X": [np.full((9, 6), np.nan)] * 140}, "series 0 is not"),
        ({"X": [np.full((9, 6), 400.0)] * 140}, "int16"),
        ({"X": [np.zeros((9, 6))] * 139}, "subject is not one whole number for each of 139"),
        ({"y": np.full(140, 7)}, "y is not 0 to 6"),
        ({"y": np.full(140, 0.5)}, "y is not one whole number"),
        ({"y": np.zeros(140, int)}, "person 1 has not done all 7"),
        ({"side": None}, "side is not one"),
    ],
)
def test_another_source_is_not_converted(changes, message):
    with pytest.raises(ValueError, match=message):
        convert(source() | changes)


class Evil:
    """Calls what it likes when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_a_pickle_that_calls_anything_is_refused_before_it_does(tmp_path):
    path = save(tmp_path / "watch.npy", source() | {"side": Evil(tmp_path / "called")})
    with pytest.raises(ValueError, match=r"asks for pathlib"):
        read(path)
    assert not (tmp_path / "called").exists()


@pytest.mark.parametrize("content", [b"", b"not an array", pickle.dumps([])])
def test_what_is_no_array_is_one_line_and_a_status(tmp_path, content):
    path = tmp_path / "watch.npy"
    path.write_bytes(content)
    script = ROOT / "tools" / "convert_smartwatch.py"
    run = subprocess.run(
        [sys.executable, script, path, tmp_path / "out.json"], capture_output=True, text=True, check=False
    )
    assert run.returncode == 1
    assert run.stderr.startswith(f"cannot convert {path}: ") and len(run.stderr.splitlines()) == 1
    assert not (tmp_path / "out.json").exists()


def test_an_array_of_numbers_and_another_object_are_refused(tmp_path):
    np.save(tmp_path / "numbers.npy", np.zeros(3))
    with pytest.raises(ValueError, match="float64 of shape"):
        read(tmp_path / "numbers.npy")
    with pytest.raises(ValueError, match="holds a list"):
        read(save(tmp_path / "list.npy", [1, 2]))
