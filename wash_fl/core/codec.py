"""Values as bytes, in fewer bytes than float32 if so wanted, and what a member does about the difference.

What travels instead of values v is q(v), ``rounded(v, dtype)``. The sender keeps what is left out, v - q(v),
and adds it to what it receives (:func:`taken_over`), so that the sum over the members is not disturbed.

Only integers and float32's own +, -, *, / and rounding to an integer are used, which IEEE 754 defines to the
last bit: an x86 server and an Arm device get the same bytes. ``docs/protocol.md``, section 5, has them one by
one.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from wash_fl.config import ExchangeConfig

Values = NDArray[np.float32]

FLOAT32: Final = "float32"
BFLOAT16: Final = "bfloat16"
FLOAT16: Final = "float16"
INT8: Final = "int8"

BLOCK: Final = 256
"""Values of a slot that share one scale in int8; the last block of a slot may have fewer."""

_LARGEST: Final = np.float32(127)
_SMALLEST_SCALE: Final = np.float32(2.0**-100)
_LARGEST_BFLOAT16: Final = np.uint32(0x7F7F)
_LARGEST_FLOAT16: Final = np.float32(65504)
_SCALE: Final = np.dtype("<f4").itemsize


def delivery_dtype(exchange: ExchangeConfig) -> str:
    """Return the dtype of a run's deliveries; its offers have ``exchange.dtype``.

    A delivery must carry the mixed values exactly, for nobody keeps what it would leave out. Whole slices
    that swap are encoded again as they were, whatever the dtype; single values that swap have no common
    scale any more; and a mean needs all of float32. By how much an anchor moves is in few bits: the server
    keeps what that leaves out (:mod:`wash_fl.core.anchor`).
    """
    if exchange.anchored:
        return exchange.dtype
    if exchange.mix == "average" or (exchange.topology == "permutation" and exchange.dtype == INT8):
        return FLOAT32
    return exchange.dtype


def encoded_size(dtype: str, slots: int, count: int) -> int:
    """Return how many bytes values of shape (slots, count) are."""
    if dtype == INT8:
        return slots * (_SCALE * _blocks(count) + count)
    return slots * count * (4 if dtype == FLOAT32 else 2)


def encode_values(values: Values, dtype: str) -> bytes:
    """Return values as bytes, rounded to nearest (ties to even) where the dtype cannot hold them.

    Parameters
    ----------
    values : ndarray of float32, shape (slots, count)
        Finite.
    dtype : str
        ``float32`` (bit for bit), ``bfloat16``, ``float16`` (what is larger than it can hold becomes its
        largest) or ``int8`` (per block of 256 values of a slot a scale, and a signed byte per value).

    Returns
    -------
    bytes
        ``encoded_size(dtype, slots, count)`` of them. Encoding what they are decoded to gives them again.
    """
    values = np.ascontiguousarray(values, dtype=np.float32)
    if dtype == FLOAT32:
        return values.astype("<f4", copy=False).tobytes()
    if dtype == BFLOAT16:
        bits = values.view(np.uint32)
        upper = (bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)
        # Rounding up must not make an infinity of the largest values.
        sign, magnitude = upper & np.uint32(0x8000), upper & np.uint32(0x7FFF)
        halves: NDArray[np.uint16] = (sign | np.minimum(magnitude, _LARGEST_BFLOAT16)).astype("<u2")
        return halves.tobytes()
    if dtype == FLOAT16:
        return np.clip(values, -_LARGEST_FLOAT16, _LARGEST_FLOAT16).astype("<f2").tobytes()
    assert dtype == INT8, dtype
    slots, count = values.shape
    padded = np.zeros((slots, _blocks(count) * BLOCK), dtype=np.float32)
    padded[:, :count] = values
    blocks = padded.reshape(slots, _blocks(count), BLOCK)
    scales = _scales(np.abs(blocks).max(axis=2))
    # What is divided by infinity is zero: the blocks without a scale.
    divisors = np.where(scales > 0, scales, np.float32(np.inf))[..., np.newaxis]
    quotients = np.rint(blocks / divisors).astype(np.int8).reshape(padded.shape)[:, :count]
    rows = zip(scales.astype("<f4"), quotients, strict=True)
    return b"".join(scale.tobytes() + row.tobytes() for scale, row in rows)


def decode_values(data: bytes, dtype: str, slots: int, count: int) -> Values:
    """Return what bytes stand for.

    Parameters
    ----------
    data : bytes
        ``encoded_size(dtype, slots, count)`` of them. Whether :func:`encode_values` could have made them is
        not looked at: the values may be infinite or not numbers.
    dtype : str
        As for :func:`encode_values`.
    slots, count : int
        Shape of the values.

    Returns
    -------
    ndarray of float32, shape (slots, count)
        Read-only.

    Raises
    ------
    ValueError
        If there are more bytes, or fewer.
    """
    if len(data) != encoded_size(dtype, slots, count):
        raise ValueError(f"{len(data)} bytes are not {slots} x {count} values as {dtype}.")
    if dtype == FLOAT32:
        values = np.frombuffer(data, dtype="<f4").reshape(slots, count).astype(np.float32, copy=False)
    elif dtype == BFLOAT16:
        bits = np.frombuffer(data, dtype="<u2").astype(np.uint32) << np.uint32(16)
        values = bits.view(np.float32).reshape(slots, count)
    elif dtype == FLOAT16:
        values = np.frombuffer(data, dtype="<f2").astype(np.float32).reshape(slots, count)
    else:
        assert dtype == INT8, dtype
        rows = np.frombuffer(data, dtype=np.uint8).reshape(slots, encoded_size(dtype, 1, count))
        scales, quotients = np.split(rows, [_SCALE * _blocks(count)], axis=1)
        each = np.repeat(np.ascontiguousarray(scales).view("<f4"), BLOCK, axis=1)[:, :count]
        with np.errstate(over="ignore", invalid="ignore"):
            values = quotients.view(np.int8).astype(np.float32) * each.astype(np.float32, copy=False)
    values.flags.writeable = False
    return values


def rounded(values: Values, dtype: str) -> Values:
    """Return q(v): what values of shape (slots, count) are once they have travelled."""
    return decode_values(encode_values(values, dtype), dtype, *values.shape)


def taken_over(received: Values, *, offered: Values, dtype: str, now: Values | None = None) -> Values:
    """Return a member's new values after an exchange: what it received, and what it did not give away.

    That is ``received + (now - q(offered))``, and exactly ``received`` wherever the difference is zero. It
    is what quantization left out of the offer and, if the member trained on while its offer was on its way,
    what it learned since.

    Parameters
    ----------
    received : ndarray of float32, shape (slots, count)
        The delivery's values.
    offered : ndarray of float32, shape (slots, count)
        What the member held when it offered, before it was encoded.
    dtype : str
        The dtype of its offer.
    now : ndarray of float32, shape (slots, count), optional
        What it holds; by default what it offered.
    """
    if dtype == FLOAT32 and now is None:
        return received
    kept = (offered if now is None else now) - rounded(offered, dtype)
    # Even adding zero would lose the sign of a zero that was received.
    return np.where(kept == 0, received, received + kept)


def _blocks(count: int) -> int:
    return -(-count // BLOCK)


def _scales(largest: Values) -> Values:
    """Return the scale of blocks with these largest magnitudes; zero where that would be very small.

    It has 17 significant bits, so that its product with a byte is exact. Decoded values have the same scale
    again then, to the bit, and the same bytes.
    """
    bits = (largest / _LARGEST).view(np.uint32)
    bits = (bits + np.uint32(0x3F) + ((bits >> np.uint32(7)) & np.uint32(1))) & ~np.uint32(0x7F)
    scales = bits.view(np.float32)
    return np.where(scales < _SMALLEST_SCALE, np.float32(0), scales)
