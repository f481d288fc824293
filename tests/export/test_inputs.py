"""Files of all kinds and folders of them become examples, with the place of each."""

import io
import re
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from wash_fl.errors import ExportError
from wash_fl.export.inputs import find_files, load_inputs, read_examples
from wash_fl.export.metadata import ModelCard
from wash_fl.export.normalization import Normalization

IMAGES = ModelCard(
    classes=("cat", "dog"), input_shape=(1, 2, 3), normalization=Normalization(mean=(0.5,), std=(0.25,))
)
WINDOWS = ModelCard(
    classes=("up", "down"), input_shape=(2, 3), normalization=Normalization(mean=(0.0, 1.0), std=(2.0, 4.0))
)
BATCH = np.random.default_rng(0).uniform(-2, 2, size=(3, 1, 2, 3)).astype(np.float32)


def refusal(function, *args, **options) -> str:
    with pytest.raises(ExportError) as caught:
        function(*args, **options)
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


def grey(path: Path, value: int, size: tuple[int, int] = (3, 2)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", size, value).save(path)
    return path


def test_an_image_is_one_prepared_example(tmp_path):
    examples = read_examples(grey(tmp_path / "image.png", 51), IMAGES)
    np.testing.assert_allclose(examples.inputs, np.full((1, 1, 2, 3), (0.2 - 0.5) / 0.25), rtol=1e-6)
    assert (examples.places, examples.left_over) == (({},), 0)
    large = grey(tmp_path / "large.png", 51, (30, 20))
    np.testing.assert_array_equal(read_examples(large, IMAGES, resize=True).inputs, examples.inputs)


def test_a_table_gives_prepared_windows_with_their_rows(tmp_path):
    (tmp_path / "a.csv").write_text("a,b\n" + "2,5\n" * 7)
    examples = read_examples(tmp_path / "a.csv", WINDOWS)
    np.testing.assert_array_equal(examples.inputs, np.ones((2, 2, 3), np.float32))
    assert examples.places == ({"rows": [1, 3]}, {"rows": [4, 6]})
    assert examples.left_over == 1
    assert len(read_examples(tmp_path / "a.csv", WINDOWS, stride=1).inputs) == 5


def test_arrays_are_taken_as_they_are_with_their_place(tmp_path):
    np.save(tmp_path / "one.npy", BATCH[0])
    np.save(tmp_path / "many.npy", BATCH)
    np.savez(tmp_path / "some.npz", second=BATCH[1], all=BATCH[:2])
    np.savez_compressed(tmp_path / "small.npz", BATCH)
    assert read_examples(tmp_path / "one.npy", IMAGES).places == ({},)
    assert read_examples(tmp_path / "many.npy", IMAGES).places == ({"index": 0}, {"index": 1}, {"index": 2})
    some = read_examples(tmp_path / "some.npz", IMAGES)
    np.testing.assert_array_equal(some.inputs, BATCH[[1, 0, 1]])
    assert some.places == ({"array": "second"}, {"array": "all", "index": 0}, {"array": "all", "index": 1})
    np.testing.assert_array_equal(read_examples(tmp_path / "small.npz", IMAGES).inputs, BATCH)


def test_files_of_several_kinds_become_one_batch_in_the_given_order(tmp_path):
    np.save(tmp_path / "many.npy", BATCH)
    folder = tmp_path / "photos"
    for name, value in {"b.png": 255, "a.png": 0, "more/c.PNG": 51}.items():
        grey(folder / name, value)
    loaded = load_inputs([folder, tmp_path / "many.npy"], IMAGES)
    np.testing.assert_allclose(loaded[:3, 0, 0, 0], [-2, 2, -1.2], rtol=1e-6)
    np.testing.assert_array_equal(loaded[3:], BATCH)


def test_a_folder_is_its_files_by_path_without_hidden_ones_and_says_what_it_passes_over(tmp_path):
    names = ["b.png", "a.jpg", "cats/z.npz", "cats/notes.txt", ".hidden.png", ".git/a.png", "README"]
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    single = tmp_path / "cats" / "notes.txt"  # a file that is named is not passed over
    files, passed_over = find_files([single, tmp_path])
    assert files == [single, *(tmp_path / name for name in ("a.jpg", "b.png", "cats/z.npz"))]
    assert passed_over == [tmp_path / "README", single]


def test_a_folder_without_anything_to_read_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("")
    message = refusal(find_files, [tmp_path])
    assert str(tmp_path) in message and ".png" in message and ".csv" in message
    assert "no input files" in refusal(find_files, [])


@pytest.mark.parametrize(("name", "part"), [("film.mp4", "kind .mp4"), ("noname", "without a kind")])
def test_another_kind_of_file_is_refused_with_the_kinds_that_are_read(tmp_path, name, part):
    (tmp_path / name).write_bytes(b"")
    message = refusal(read_examples, tmp_path / name, IMAGES)
    assert name in message and part in message and ".npy" in message and ".png" in message


def test_a_kind_that_does_not_fit_the_model_is_refused(tmp_path):
    (tmp_path / "a.csv").write_text("1,2\n" * 3)
    assert "(1, 2, 3)" in refusal(read_examples, tmp_path / "a.csv", IMAGES)
    assert "(2, 3)" in refusal(read_examples, grey(tmp_path / "a.png", 0), WINDOWS)


def test_raw_values_are_refused_where_the_card_does_not_say_how_they_are_prepared(tmp_path):
    card = ModelCard(classes=("a", "b"), input_shape=(1, 2, 3), preprocessing="x / 255")
    message = refusal(read_examples, grey(tmp_path / "a.png", 0), card)
    assert "NORMALIZATION" in message and "'x / 255'" in message and "a.png" in message
    np.save(tmp_path / "a.npy", BATCH)
    np.testing.assert_array_equal(read_examples(tmp_path / "a.npy", card).inputs, BATCH)


def test_an_array_that_does_not_fit_is_named_with_its_archive(tmp_path):
    np.savez(tmp_path / "some.npz", good=BATCH, bad=BATCH.astype(np.float64))
    message = refusal(read_examples, tmp_path / "some.npz", IMAGES)
    assert f"{tmp_path / 'some.npz'}: bad" in message and "float64" in message


def test_archives_that_are_damaged_empty_or_pickled_are_refused(tmp_path):
    path = tmp_path / "some.npz"
    np.savez(path, BATCH)
    content = path.read_bytes()
    for length in (0, 3, 60, len(content) - 1):
        path.write_bytes(content[:length])
        assert str(path) in refusal(read_examples, path, IMAGES)
    changed = bytearray(content)
    changed[len(content) // 2] ^= 1
    path.write_bytes(changed)
    assert "CRC" in refusal(read_examples, path, IMAGES)
    np.savez(path, np.array([{"a": 1}], dtype=object))
    assert "pickle" in refusal(read_examples, path, IMAGES)
    np.savez(path)
    assert "holds no array" in refusal(read_examples, path, IMAGES)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("notes.txt", "no array")
    assert "'notes.txt' in it is no array" in refusal(read_examples, path, IMAGES)
    np.save(tmp_path / "one.npy", BATCH)
    path.write_bytes((tmp_path / "one.npy").read_bytes())
    assert "not an archive" in refusal(read_examples, path, IMAGES)


@pytest.mark.parametrize("suffix", [".npy", ".npz"])
def test_a_header_that_promises_more_than_any_memory_is_refused(tmp_path, suffix):
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "<f4", "fortran_order": False, "shape": (10**15, 1, 2, 3)}
    )
    path = tmp_path / f"vast{suffix}"
    if suffix == ".npy":
        path.write_bytes(header.getvalue())
    else:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("a.npy", header.getvalue())
    assert str(path) in refusal(read_examples, path, IMAGES)


# Whole numbers, and arrays of another shape

TOKENS = ModelCard(classes=("even", "odd"), input_shape=(4,), input_type="int64")
SENTENCES = np.array([[3, 1, 4, 1], [5, 9, 2, 6]])


def test_whole_numbers_are_read_from_tables_without_a_normalization(tmp_path):
    (tmp_path / "a.csv").write_text("w,x,y,z\n3,1,4,1\n5,9,2.0,6\n")
    examples = read_examples(tmp_path / "a.csv", TOKENS)
    np.testing.assert_array_equal(examples.inputs, SENTENCES)
    assert examples.inputs.dtype == np.int64 and examples.places == ({"rows": [1, 1]}, {"rows": [2, 2]})
    series = ModelCard(classes=("even", "odd"), input_shape=(2, 2), input_type="uint8", columns=("a", "b"))
    (tmp_path / "b.csv").write_text("b,a\n2,1\n4,3\n")
    batch = read_examples(tmp_path / "b.csv", series).inputs
    assert batch.dtype == np.uint8 and batch.tolist() == [[[1, 3], [2, 4]]]


@pytest.mark.parametrize("dtype", [np.int64, np.int32, np.uint8, np.uint64, ">i8"])
def test_whole_numbers_of_another_type_are_taken_where_they_all_fit(tmp_path, dtype):
    np.save(tmp_path / "a.npy", SENTENCES.astype(dtype))
    batch = read_examples(tmp_path / "a.npy", TOKENS).inputs
    np.testing.assert_array_equal(batch, SENTENCES)
    assert batch.dtype == np.dtype(np.int64)


@pytest.mark.parametrize(
    ("array", "input_type", "part"),
    [
        (SENTENCES + 2**31, "int32", "run from 2147483649"),
        (-SENTENCES, "uint8", "run from -9"),
        (SENTENCES.astype(np.uint64) + 2**63, "int64", "int64 can hold"),
        (SENTENCES.astype(np.float32), "int64", "float32, not int64"),
        (SENTENCES.astype(np.float64), "int64", ".astype(numpy.int64)"),
        (SENTENCES > 3, "int64", "bool, not int64"),
    ],
)
def test_what_is_no_whole_number_of_the_models_type_is_refused(tmp_path, array, input_type, part):
    np.save(tmp_path / "a.npy", array)
    assert part in refusal(read_examples, tmp_path / "a.npy", replace(TOKENS, input_type=input_type))


def test_whole_numbers_for_a_model_of_floats_are_refused(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((1, 2, 3), np.int64))
    assert "int64, not float32" in refusal(read_examples, tmp_path / "a.npy", IMAGES)


@pytest.mark.parametrize("shape", [(4,), (1, 2, 3)])
def test_pictures_for_a_model_of_whole_numbers_are_refused(tmp_path, shape):
    card = replace(TOKENS, input_shape=shape, input_type="uint8")
    message = refusal(read_examples, grey(tmp_path / "a.png", 0), card)
    assert "whole numbers (uint8)" in message and ".npy" in message
    assert (".csv" in message) == (len(shape) == 1)


@pytest.mark.parametrize(
    ("card", "shape", "mended"),
    [
        (replace(IMAGES, input_shape=(3, 4, 5)), (4, 5, 3), (3, 4, 5)),
        (replace(IMAGES, input_shape=(3, 4, 5)), (7, 4, 5, 3), (7, 3, 4, 5)),
        (WINDOWS, (7, 3, 2), (7, 2, 3)),
        (IMAGES, (2, 3), (1, 1, 2, 3)),
        (IMAGES, (7, 2, 3), (7, 1, 2, 3)),
        (IMAGES, (7, 2, 3, 1), (7, 1, 2, 3)),
    ],
)
def test_an_array_whose_channels_are_elsewhere_is_refused_with_what_mends_it(tmp_path, card, shape, mended):
    inputs = np.arange(np.prod(shape), dtype=np.float32).reshape(shape) / 1000
    np.save(tmp_path / "a.npy", inputs)
    message = refusal(read_examples, tmp_path / "a.npy", card)
    (code,) = re.findall(r"numpy.moveaxis\(.*?\)|\.reshape\(.*?\)", message)
    result = eval(code if code.startswith("numpy") else f"inputs{code}", {"numpy": np, "inputs": inputs})
    assert result.shape == mended
    np.save(tmp_path / "a.npy", result)
    assert len(read_examples(tmp_path / "a.npy", card).inputs) == (
        mended[0] if len(mended) > 3 or card is WINDOWS else 1
    )


def test_an_array_of_quite_another_shape_is_refused_without_a_guess(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((2, 2, 2), np.float32))
    assert "prepare them as the model's card says" in refusal(read_examples, tmp_path / "a.npy", WINDOWS)
