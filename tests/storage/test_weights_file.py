"""Arrays on disk are read back as they were, whatever their strides, and a flipped bit is seen."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays_of
from safetensors import SafetensorError
from safetensors.numpy import load, save

from wash_fl.storage.weights_file import read_weights, weights_bytes, write_weights

arrays = arrays_of.arrays(
    st.sampled_from([np.float32, np.float64, np.float16, np.int64, np.uint8, np.bool_]),
    arrays_of.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4),
)


@given(arrays, st.sampled_from(["C", "F", "transposed", "every other", "expanded"]))
def test_any_strides_are_written_and_read(array: np.ndarray[Any, Any], order: str) -> None:
    match order:
        case "transposed":
            array = array.T
        case "every other":
            array = np.repeat(array[..., np.newaxis], 2, axis=-1)[..., ::2]
        case "expanded":
            array = np.broadcast_to(array, (3, *array.shape))
        case _:
            array = np.array(array, order=order)
    back = load(weights_bytes({"a": array}))["a"]
    assert back.dtype == array.dtype and back.shape == array.shape
    assert back.tobytes() == array.tobytes()


def test_a_flipped_bit_of_a_value_is_seen_and_a_file_without_a_hash_is_read(tmp_path: Path) -> None:
    path = tmp_path / "weights"
    weights = {"a": np.arange(4, dtype=np.float32), "b": np.array(True)}
    write_weights(path, weights)
    back = read_weights(path)
    assert (back["a"].tolist(), back["b"].tolist()) == ([0, 1, 2, 3], True)
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)
    with pytest.raises(SafetensorError, match="bit"):
        read_weights(path)
    path.write_bytes(save(weights))
    assert read_weights(path).keys() == weights.keys()
    with pytest.raises(FileNotFoundError):
        read_weights(tmp_path / "nothing")
