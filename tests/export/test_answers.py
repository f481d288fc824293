"""Answers to many files: in order, in batches, and in spite of one that cannot be read."""

import numpy as np
import pytest
from PIL import Image

from wash_fl.errors import ExportError
from wash_fl.export.answers import answer_files
from wash_fl.export.inference import Predictor
from wash_fl.export.metadata import ModelCard
from wash_fl.export.normalization import Normalization

CARD = ModelCard(
    classes=("cat", "dog", "owl"),
    input_shape=(3, 2, 2),
    normalization=Normalization(mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.25)),
)


@pytest.fixture
def model(tmp_path, write_model):
    path = tmp_path / "model.onnx"
    weight = write_model(path, CARD)
    return Predictor(path), weight


def files_of(tmp_path, count):
    pixels = np.random.default_rng(2).integers(0, 256, (count, 2, 2, 3), dtype=np.uint8)
    paths = [tmp_path / f"{number:02}.png" for number in range(count)]
    for path, image in zip(paths, pixels, strict=True):
        Image.fromarray(image).save(path)
    raw = pixels.transpose(0, 3, 1, 2) / 255
    mean, std = (np.reshape(each, (3, 1, 1)) for each in ((0.4, 0.5, 0.6), (0.2, 0.3, 0.25)))
    return paths, (raw - mean) / std


@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_every_file_is_answered_in_order_whatever_the_batch_size(tmp_path, model, batch_size):
    predictor, weight = model
    paths, prepared = files_of(tmp_path, 7)
    logits = prepared.reshape(7, 12) @ weight
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    files = list(answer_files(predictor, paths, batch_size=batch_size))
    assert [each.file for each in files] == paths
    assert [each.answers[0].label for each in files] == [CARD.classes[i] for i in logits.argmax(axis=1)]
    expected = (powers / powers.sum(axis=1, keepdims=True)).max(axis=1)
    np.testing.assert_allclose([each.answers[0].probability for each in files], expected, rtol=1e-4)
    assert len({each.answers[0].label for each in files}) > 1


def test_a_file_that_cannot_be_read_keeps_its_place_and_the_others_their_answers(tmp_path, model):
    predictor, _ = model
    paths, prepared = files_of(tmp_path, 3)
    np.save(tmp_path / "batch.npy", prepared[1:].astype(np.float32))
    broken, missing = tmp_path / "broken.png", tmp_path / "missing.csv"
    broken.write_bytes(b"no image")
    order = [paths[0], broken, tmp_path / "batch.npy", missing]
    alone = [next(answer_files(predictor, [path])).answers for path in paths]
    for batch_size in (1, 2, 64):
        files = list(answer_files(predictor, order, batch_size=batch_size))
        assert [each.file for each in files] == order
        assert [len(each.answers) for each in files] == [1, 0, 2, 0]
        assert [bool(each.refused) for each in files] == [False, True, False, True]
        assert "broken.png" in files[1].refused and "missing.csv" in files[3].refused
        assert [a.label for each in files for a in each.answers] == [each[0].label for each in alone]
        assert [a.place for a in files[2].answers] == [{"index": 0}, {"index": 1}]


def test_files_are_read_a_batch_at_a_time(tmp_path, model, monkeypatch):
    predictor, _ = model
    paths, _ = files_of(tmp_path, 6)
    sizes = []
    logits = Predictor.logits

    def counting(self, batch):
        sizes.append(len(batch))
        return logits(self, batch)

    monkeypatch.setattr(Predictor, "logits", counting)
    answers = answer_files(predictor, iter(paths), batch_size=2)
    next(answers)
    assert sizes == [2]
    assert len(list(answers)) == 5 and sizes == [2, 2, 2]


def test_a_model_that_cannot_answer_is_no_matter_of_a_file(tmp_path, model, monkeypatch):
    predictor, _ = model
    paths, _ = files_of(tmp_path, 2)

    def broken(self, batch):
        raise ExportError("the model is broken.")

    monkeypatch.setattr(Predictor, "logits", broken)
    with pytest.raises(ExportError, match="the model is broken"):
        list(answer_files(predictor, paths))


def test_no_files_have_no_answers(model):
    assert list(answer_files(model[0], [])) == []
