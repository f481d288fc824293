"""Tests of the Fashion-MNIST task: where it looks, and what it refuses."""

import gzip
import re
import sys
from hashlib import md5
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from wash_fl.errors import DataError
from wash_fl.export import ModelCard, Normalization, load_inputs
from wash_fl.extras import install_hint
from wash_fl.tasks import fashion_mnist, labels_of, load_task, tensors_of

torch.set_num_threads(1)

TORCHVISION = "torchvision.datasets.FashionMNIST"  # imported when it is needed: it takes seconds
NAMES = [
    f"{part}-{kind}.gz" for part in ("train", "t10k") for kind in ("images-idx3-ubyte", "labels-idx1-ubyte")
]


def idx(array):
    header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, dtype=">u4").tobytes()
    return header + array.astype(np.uint8).tobytes()


def write_set(folder, examples=6):
    folder.mkdir(parents=True, exist_ok=True)
    images = np.arange(examples * 28 * 28).reshape(examples, 28, 28) % 256
    for name in NAMES:
        content = images if "images" in name else np.arange(examples) % 10
        (folder / name).write_bytes(gzip.compress(idx(content), mtime=0))


@pytest.fixture
def own(tmp_path, monkeypatch):
    """Return the user's data folder, still empty, on a machine without Debian's package or network."""
    monkeypatch.setattr(fashion_mnist, "DEBIAN_FOLDER", tmp_path / "debian")
    monkeypatch.setattr(f"{TORCHVISION}.mirrors", [(tmp_path / "no-network").as_uri() + "/"])
    folder = tmp_path / "own"
    monkeypatch.setenv("WASH_FL_DATA", str(folder))
    return folder


@pytest.fixture
def mirror(own, serve, tmp_path, monkeypatch):
    """Return the folder of a stand-in for the download site: torchvision's own code, another address."""
    folder = tmp_path / "mirror"
    write_set(folder)
    sums = [(name, md5((folder / name).read_bytes()).hexdigest()) for name in NAMES]
    monkeypatch.setattr(f"{TORCHVISION}.resources", sums)
    monkeypatch.setattr(f"{TORCHVISION}.mirrors", [serve(folder)])
    return folder


@pytest.mark.skipif(not Path("/usr/share/datasets/fashion-mnist").is_dir(), reason="no dataset-fashion-mnist")
def test_debians_files_are_the_whole_set_normalised():
    inputs, targets = tensors_of(fashion_mnist.train_data())
    assert inputs.shape == (60_000, *fashion_mnist.INPUT_SHAPE)
    assert (inputs.dtype, targets.dtype) == (torch.float32, torch.int64)
    assert abs(inputs.mean()) < 0.001 and abs(inputs.std() - 1) < 0.001
    assert np.bincount(labels_of(fashion_mnist.test_data())).tolist() == [1000] * 10


@pytest.mark.parametrize("place", ["debian", "own", "own/FashionMNIST/raw"])
def test_files_are_found_in_every_place(own, tmp_path, place):
    write_set(tmp_path / place)
    inputs, targets = tensors_of(fashion_mnist.test_data())
    assert targets.tolist() == [0, 1, 2, 3, 4, 5]
    raw = inputs * fashion_mnist.STD + fashion_mnist.MEAN
    torch.testing.assert_close(raw[0, 0, 0], torch.arange(28) / 255)


def test_what_is_nowhere_is_downloaded_and_kept(own, mirror):
    assert tensors_of(fashion_mnist.train_data())[0].shape == (6, 1, 28, 28)
    assert sorted(path.name for path in own.iterdir()) == sorted(NAMES)
    for name in NAMES:
        (mirror / name).unlink()
    assert len(tensors_of(fashion_mnist.test_data())[1]) == 6


def test_a_download_that_arrives_damaged_leaves_nothing(own, mirror):
    (mirror / NAMES[1]).write_bytes(b"an error page")
    with pytest.raises(DataError, match="the download failed"):
        fashion_mnist.train_data()
    assert list(own.iterdir()) == []


def test_without_files_or_network_the_error_says_what_where_and_what_to_do(own):
    with pytest.raises(DataError) as raised:
        fashion_mnist.test_data()
    message = str(raised.value)
    for part in (
        NAMES[2],
        NAMES[3],
        "/debian",
        str(own),
        "apt install dataset-fashion-mnist",
        "WASH_FL_DATA",
    ):
        assert part in message
    assert "\n" not in message


def test_without_torchvision_the_error_names_the_extra(own, monkeypatch):
    monkeypatch.setitem(sys.modules, "torchvision.datasets", None)
    with pytest.raises(DataError, match=re.escape(install_hint("simulation"))):
        fashion_mnist.test_data()


GOOD = idx(np.arange(12).reshape(3, 4))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "cannot read|starts with nothing"),
        (b"not gzip", "Not a gzipped file"),
        (gzip.compress(GOOD)[:-12], "ended before"),
        (gzip.compress(GOOD)[:12] + b"\xff" * 8 + gzip.compress(GOOD)[20:], "cannot read"),
        (gzip.compress(b""), "starts with nothing"),
        (gzip.compress(b"\0\0\x0d" + GOOD[3:]), "starts with 00000d02"),
        (gzip.compress(idx(np.arange(12))), "starts with 00000801"),
        (gzip.compress(GOOD[:7]), "asks for"),
        (gzip.compress(GOOD[:-1]), "23 bytes where its header, sizes .3, 4., asks for 24"),
        (gzip.compress(GOOD + b"\0"), "25 bytes where its header, sizes .3, 4., asks for 24"),
    ],
    ids=["empty", "not-gzip", "truncated", "garbled", "nothing", "type", "rank", "header", "short", "long"],
)
def test_a_malformed_idx_file_is_refused_by_name(tmp_path, content, message):
    path = tmp_path / "some-idx2-ubyte.gz"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message) as raised:
        fashion_mnist.read_idx(path, 2)
    assert str(path) in str(raised.value)


def test_a_well_formed_idx_file_is_read(tmp_path):
    path = tmp_path / "some-idx2-ubyte.gz"
    path.write_bytes(gzip.compress(GOOD))
    assert fashion_mnist.read_idx(path, 2).tolist() == np.arange(12).reshape(3, 4).tolist()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (NAMES[2], np.zeros((5, 28, 28)), "due, one image of 28x28 for each label"),
        (NAMES[2], np.zeros((6, 32, 32)), "due, one image of 28x28 for each label"),
        (NAMES[3], np.full(6, 10), "has the label 10"),
    ],
)
def test_files_that_do_not_belong_together_are_refused(own, name, content, message):
    write_set(own)
    (own / name).write_bytes(gzip.compress(idx(content)))
    with pytest.raises(DataError, match=message):
        fashion_mnist.test_data()


def test_a_device_makes_of_an_image_file_what_the_model_was_trained_on(own, tmp_path):
    write_set(own)
    inputs, _ = tensors_of(fashion_mnist.test_data())
    mean, std = load_task("fashion-mnist").normalization
    images = np.arange(6 * 28 * 28).reshape(6, 28, 28) % 256  # as written
    for number, image in enumerate(images):
        Image.fromarray(image.astype(np.uint8)).save(tmp_path / f"{number}.png")
    card = ModelCard(
        classes=("a", "b"), input_shape=(1, 28, 28), normalization=Normalization(mean=mean, std=std)
    )
    read = load_inputs(sorted(tmp_path.glob("*.png")), card)
    np.testing.assert_array_equal(read, inputs.numpy())
