"""A model file is as it was written, or it does not answer; told with Python alone."""

import random
from pathlib import Path

import numpy as np
import onnx
import pytest

from wash_fl.errors import ExportError
from wash_fl.export.inference import Predictor
from wash_fl.export.metadata import ModelCard
from wash_fl.export.seal import ENTRY, KEY, check_seal, sealed

CARD = ModelCard(classes=("a", "b", "c"), input_shape=(8, 20), preprocessing="none", run={"seed": "1"})


@pytest.fixture
def path(tmp_path: Path, write_model) -> Path:
    write_model(tmp_path / "model.onnx", CARD)
    return tmp_path / "model.onnx"


def refusal(path: Path) -> str:
    with pytest.raises(ExportError) as caught:
        Predictor(path)
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)
    return str(caught.value)


def test_a_sealed_file_is_one_that_others_read_too(path: Path) -> None:
    check_seal(path)
    proto = onnx.load(path)
    onnx.checker.check_model(proto, full_check=True)
    (seal,) = (each.value for each in proto.metadata_props if each.key == KEY)
    assert path.read_bytes().endswith(ENTRY + seal.encode())
    # As onnxruntime hands the metadata out, it is a key like the others.
    assert Predictor(path)._session.get_modelmeta().custom_metadata_map[KEY] == seal


def test_sealing_again_gives_the_same_bytes_and_changes_nothing(path: Path) -> None:
    proto = onnx.load(path)
    before = proto.SerializeToString(deterministic=True)
    assert sealed(proto) == path.read_bytes()
    assert proto.SerializeToString(deterministic=True) == before


@pytest.mark.parametrize("length", [1, 200])
@pytest.mark.parametrize("how", ["zeroed", "flipped", "noise"])
def test_damage_anywhere_is_refused(path: Path, length: int, how: str) -> None:
    """Graph, weights, metadata and the seal itself; offsets all over the file, its ends among them."""
    content = path.read_bytes()
    generator = random.Random(f"{length} {how}")
    offsets = [0, len(content) - length, content.index(b"weight"), content.index(b"wash_fl.classes")]
    offsets += [len(content) - 64 - length, *(generator.randrange(len(content) - length) for _ in range(150))]
    refused = 0
    for offset in offsets:
        piece = content[offset : offset + length]
        changed = {
            "zeroed": bytes(length),
            "flipped": bytes(each ^ 0x10 for each in piece),
            "noise": generator.randbytes(length),
        }[how]
        path.write_bytes(content[:offset] + changed + content[offset + length :])
        if changed != piece:
            refusal(path)
            refused += 1
    assert refused > 100


def test_bytes_that_are_lost_or_added_are_refused(path: Path) -> None:
    content = path.read_bytes()
    for length in [*range(0, len(content), 97), len(content) - 1]:
        path.write_bytes(content[:length])
        refusal(path)
    for extra in (b"\0", ENTRY + b"0" * 64, content):
        path.write_bytes(content + extra)
        assert "copy it again" in refusal(path).lower()
    path.write_bytes(content[1:])
    assert "is damaged" in refusal(path)


def test_a_file_without_a_seal_is_refused_with_what_to_do(path: Path) -> None:
    proto = onnx.load(path)
    del proto.metadata_props[-1]
    path.write_bytes(proto.SerializeToString())
    assert "export the model again" in refusal(path)


def test_a_weight_that_somebody_changed_is_refused_although_the_file_is_valid(path: Path) -> None:
    proto = onnx.load(path)
    weight = onnx.numpy_helper.to_array(proto.graph.initializer[0]) + np.float32(1)
    proto.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(weight, "weight"))
    onnx.save(proto, path)
    assert "is damaged" in refusal(path)


def test_a_file_is_hashed_in_pieces(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wash_fl.export.seal._CHUNK", 7)
    check_seal(path)


def test_a_missing_file_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="No such file"):
        check_seal(tmp_path / "absent.onnx")
