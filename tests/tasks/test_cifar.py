"""Tests of the CIFAR tasks on stand-ins of a few images: the format, the download, what is refused."""

import hashlib
import io
import tarfile
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from wash_fl.config import RunConfig
from wash_fl.errors import DataError
from wash_fl.export import ModelCard, Normalization, load_inputs
from wash_fl.lab.compare.trainer import Trainer
from wash_fl.tasks import cifar, cifar10, cifar100, labels_of
from wash_fl.tasks.task import load_task

EACH = 20


def files(source):
    """The content of each file: a few records, every class in turn."""
    random = np.random.Generator(np.random.Philox(3))
    content = {}
    for name in (*source.train, *source.test):
        records = random.integers(0, 256, (EACH, source.labels + 3072), dtype=np.uint8)
        records[:, source.labels - 1] = np.arange(EACH) % source.classes
        content[name] = records
    return content


def write(folder, source):
    (folder / source.folder).mkdir(parents=True)
    for name, records in files(source).items():
        (folder / source.folder / name).write_bytes(records.tobytes())


@pytest.fixture
def own(tmp_path, monkeypatch):
    """Return the user's data folder, still empty, on a machine without a network."""
    monkeypatch.setattr(cifar, "_SITE", (tmp_path / "no-network").as_uri() + "/")
    folder = tmp_path / "own"
    monkeypatch.setenv("WASH_FL_DATA", str(folder))
    return folder


@pytest.mark.parametrize("task", [cifar10, cifar100])
def test_examples_are_normalised_images_and_the_last_label(own, task):
    source = cifar.CIFAR10 if task is cifar10 else cifar.CIFAR100
    assert len(task.CLASSES) == len(set(task.CLASSES)) == source.classes
    assert list(task.CLASSES) == sorted(task.CLASSES)
    write(own, source)
    data = task.train_data()
    assert len(data) == EACH * len(source.train) and len(task.test_data()) == EACH
    inputs, label = data[3]
    records = files(source)[source.train[0]]
    pixels = records[3, source.labels :].reshape(3, 32, 32) / 255
    mean, std = (np.array(each)[:, None, None] for each in (source.mean, source.std))
    assert inputs.dtype == torch.float32 and tuple(inputs.shape) == task.INPUT_SHAPE
    np.testing.assert_allclose(inputs.numpy(), (pixels - mean) / std, rtol=1e-4, atol=1e-6)
    assert label == 3
    one_file = [each % source.classes for each in range(EACH)]
    assert labels_of(data).tolist() == one_file * len(source.train)


def test_damaged_files_are_named(own, refused):
    write(own, cifar.CIFAR10)
    path = own / cifar.CIFAR10.folder / "data_batch_2.bin"
    content = path.read_bytes()
    path.write_bytes(content[:-1])
    with refused(DataError, str(path), "no records of 3073"):
        cifar10.train_data()
    path.write_bytes(b"\x0a" + content[1:])
    with refused(DataError, str(path), "class 10"):
        cifar10.train_data()


def test_without_files_and_network_it_is_said_what_to_do(own, refused):
    with refused(DataError, "cifar-10-binary.tar.gz", str(own), "WASH_FL_DATA"):
        cifar10.test_data()
    assert list(own.iterdir()) == []


@pytest.fixture
def site(own, serve, tmp_path, monkeypatch):
    """Serve a stand-in of the archive, and return its hash: torchvision's own code, another address."""
    folder = tmp_path / "site"
    write(folder, cifar.CIFAR10)
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        archive.add(folder / cifar.CIFAR10.folder, arcname=cifar.CIFAR10.folder)
    (folder / cifar.CIFAR10.archive).write_bytes(packed.getvalue())
    monkeypatch.setattr(cifar, "_SITE", serve(folder))
    return hashlib.md5(packed.getvalue(), usedforsecurity=False).hexdigest()


def test_the_archive_is_downloaded_once_and_leaves_nothing_else(own, site):
    source = replace(cifar.CIFAR10, md5=site)
    first = cifar.load(source, source.test)
    assert [each.name for each in own.iterdir()] == [source.folder]
    again = cifar.load(replace(source, md5="0" * 32), source.test)  # nothing is asked for
    assert torch.equal(first[0][0], again[0][0])


def test_another_archive_than_the_one_that_is_due_is_refused(own, site, refused):
    with refused(DataError, "download failed"):
        cifar.load(cifar.CIFAR10, cifar.CIFAR10.test)
    assert list(own.iterdir()) == []


def test_the_papers_protocol_runs_on_a_few_batches(own):
    write(own, cifar.CIFAR10)
    load_task.cache_clear()
    options = {
        "task": "cifar10",
        "members": 3,
        "rounds": 1,
        "local-steps": 2,
        "batch-size": 8,
        "exchange-plane": "stream",
        "every": 1,
        "p": 0.001,
        "topology": "permutation",
        "augment": "grid",
        "calibration-examples": 20,
    }
    try:
        trainer = Trainer(RunConfig.from_mapping(options))
        outcome = trainer.run()
    finally:
        load_task.cache_clear()
    assert trainer.escrow.settled == 2
    assert 0 <= outcome.recalibrated <= 1


@pytest.mark.parametrize("task", [cifar10, cifar100])
def test_a_device_makes_of_an_image_file_what_the_model_was_trained_on(own, task, tmp_path):
    source = cifar.CIFAR10 if task is cifar10 else cifar.CIFAR100
    write(own, source)
    pixels = files(source)[source.test[0]][2, source.labels :].reshape(3, 32, 32)
    Image.fromarray(pixels.transpose(1, 2, 0)).save(tmp_path / "image.png")
    mean, std = task.NORMALIZATION
    card = ModelCard(
        classes=task.CLASSES, input_shape=task.INPUT_SHAPE, normalization=Normalization(mean=mean, std=std)
    )
    np.testing.assert_array_equal(
        load_inputs([tmp_path / "image.png"], card)[0], task.test_data()[2][0].numpy()
    )
