"""The model card: what an ONNX file says about itself."""

import json
from dataclasses import replace

import pytest

from wash_fl.errors import ExportError
from wash_fl.export.metadata import ModelCard, Quantization
from wash_fl.export.normalization import Normalization

CARD = ModelCard(
    classes=("zéro", "one\n", '"two"'),
    input_shape=(3, 32, 32),
    preprocessing="x / 255, then minus the mean 0.5; größer is not better.",
    run={"name": "digits-1", "seed": "7", "members": "4", "weights_sha256": "ab" * 32, "wash_fl": "0.1.0"},
)

IN_NUMBERS = replace(CARD, normalization=Normalization(mean=(0.5, 0.25, 0.125), std=(1.0, 2.0, 0.3)))


def refusal(metadata: dict[str, str]) -> str:
    with pytest.raises(ExportError) as caught:
        ModelCard.from_metadata(metadata)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_card_survives_the_round_trip() -> None:
    assert ModelCard.from_metadata(CARD.to_metadata()) == CARD


def test_a_card_without_sentence_and_run_survives_too() -> None:
    card = ModelCard(classes=("a",), input_shape=(1,))
    assert ModelCard.from_metadata(card.to_metadata()) == card


def test_a_normalization_survives_to_the_last_bit_and_files_without_one_are_read() -> None:
    assert ModelCard.from_metadata(IN_NUMBERS.to_metadata()) == IN_NUMBERS
    assert "wash_fl.normalization" not in CARD.to_metadata()
    assert ModelCard.from_metadata(CARD.to_metadata()).normalization is None


@pytest.mark.parametrize(
    "value",
    [
        "null",
        "[0.5, 1]",
        '{"mean": [0.5]}',
        '{"mean": [0.5], "std": [0.0]}',
        '{"mean": [0.5], "std": [-1]}',
        '{"mean": [0.5], "std": [true]}',
        '{"mean": 0.5, "std": 1.0}',
        '{"mean": [], "std": []}',
        '{"mean": [0, 0], "std": [1, 1]}',
        '{"mean": [0, 0, 0], "std": [1]}',
        '{"mean": [NaN], "std": [1]}',
        '{"mean": [0], "std": [1], "more": 1}',
        "{",
    ],
)
def test_a_normalization_of_another_kind_is_refused(value: str) -> None:
    assert "normalization" in refusal(CARD.to_metadata() | {"wash_fl.normalization": value})


def test_a_quantization_survives_and_files_without_one_are_read() -> None:
    card = replace(IN_NUMBERS, quantization=Quantization(target="arm64", in_float=("conv1", "größer")))
    assert ModelCard.from_metadata(card.to_metadata()) == card
    assert "wash_fl.quantization" not in CARD.to_metadata()


@pytest.mark.parametrize(
    "value",
    [
        "null",
        '"x86"',
        '{"target": "x86"}',
        '{"target": 86, "in_float": []}',
        '{"target": "x86", "in_float": "conv1"}',
        '{"target": "x86", "in_float": [1]}',
        '{"target": "x86", "in_float": [], "more": 1}',
        "{",
    ],
)
def test_a_quantization_of_another_kind_is_refused(value: str) -> None:
    refusal(CARD.to_metadata() | {"wash_fl.quantization": value})


def test_every_key_has_the_prefix_and_every_value_is_json() -> None:
    metadata = CARD.to_metadata()
    assert set(metadata) == {f"wash_fl.{name}" for name in ("classes", "input_shape", "preprocessing", "run")}
    assert json.loads(metadata["wash_fl.input_shape"]) == [3, 32, 32]
    assert json.loads(metadata["wash_fl.run"])["seed"] == "7"


def test_keys_of_other_programs_are_passed_over() -> None:
    assert ModelCard.from_metadata(CARD.to_metadata() | {"onnx.infer": "1", "classes": "?"}) == CARD


def test_cards_can_be_compared_and_kept_in_sets() -> None:
    assert len({CARD, ModelCard.from_metadata(CARD.to_metadata())}) == 1


@pytest.mark.parametrize("key", sorted(CARD.to_metadata()))
def test_a_missing_key_is_named(key: str) -> None:
    metadata = CARD.to_metadata()
    del metadata[key]
    assert key in refusal(metadata)


@pytest.mark.parametrize("key", sorted(CARD.to_metadata()))
@pytest.mark.parametrize("value", ["", "{", "[1,", "nul", "[" * 100_000, "x\ny"])
def test_a_value_that_is_not_json_is_named_and_cut_short(key: str, value: str) -> None:
    message = refusal(CARD.to_metadata() | {key: value})
    assert key in message
    assert len(message) < 300


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("classes", "[]"),
        ("classes", '"cat"'),
        ("classes", '["cat", 2]'),
        ("classes", "null"),
        ("input_shape", "[0, 8]"),
        ("input_shape", "[-1]"),
        ("input_shape", "[true]"),
        ("input_shape", "[8.0]"),
        ("input_shape", '{"8": 8}'),
        ("preprocessing", "12"),
        ("run", "[]"),
        ("run", '{"seed": 7}'),
    ],
)
def test_json_of_another_kind_is_refused(name: str, value: str) -> None:
    message = refusal(CARD.to_metadata() | {f"wash_fl.{name}": value})
    assert name in message
    assert "must be" in message


def test_a_card_is_refused_when_it_is_made() -> None:
    with pytest.raises(ExportError, match=r"run must be a mapping of strings.*'seed': 7"):
        ModelCard(classes=("a", "b"), input_shape=(1,), run={"seed": 7})  # type: ignore[dict-item]
    with pytest.raises(ExportError, match="input_shape must be a tuple of positive integers"):
        ModelCard(classes=("a", "b"), input_shape=[1])  # type: ignore[arg-type]
