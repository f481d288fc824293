"""Files of all kinds and folders of them become examples, with the place of each."""

import io
import zipfile
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
BATCH = np.random.default_rng(0).normal(size=(3, 1, 2, 3)).astype(np.float32)


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


@pytest.mark.parametrize(("name", "said"), [("film.mp4", "kind .mp4"), ("noname", "without a kind")])
def test_another_kind_of_file_is_refused_with_the_kinds_that_are_read(tmp_path, name, said):
    (tmp_path / name).write_bytes(b"")
    message = refusal(read_examples, tmp_path / name, IMAGES)
    assert name in message and said in message and ".npy" in message and ".png" in message


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
