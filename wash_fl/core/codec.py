"""Values as bytes, in fewer bytes than float32 if so wanted, and what a member does about the difference.

What travels instead of values v is q(v), ``rounded(v, dtype)``. The sender keeps what is left out, v - q(v),
and adds it to what it receives (:func:`taken_over`), so that the sum over the members is not disturbed. The
encodings themselves are in :mod:`wash_fl.core.dtypes`.
"""

import numpy as np
from numpy.typing import NDArray

from wash_fl.config import ExchangeConfig
from wash_fl.core.dtypes import DTYPES, FLOAT32

Values = NDArray[np.float32]


def delivery_dtype(exchange: ExchangeConfig) -> str:
    """Return the dtype of an exchange's deliveries; its offers have ``exchange.dtype``.

    A delivery must carry the mixed values exactly, for nobody keeps what it would leave out. Whole slices
    that are passed on are encoded again as they were, whatever the dtype; single values that swap have no
    common scale any more; and a mean needs all of float32. By how much an anchor moves is in few bits: the
    server keeps what that leaves out (:mod:`wash_fl.core.anchor`).
    """
    if exchange.anchored:
        return exchange.dtype
    if exchange.mix == "average" and not exchange.members_average:
        return FLOAT32
    if exchange.topology == "permutation" and DTYPES[exchange.dtype].shares_scale:
        return FLOAT32
    return exchange.dtype


def encoded_size(dtype: str, slots: int, count: int) -> int:
    """Return how many bytes values of shape (slots, count) are."""
    return slots * DTYPES[dtype].size(count)


def encode_values(values: Values, dtype: str) -> bytes:
    """Return values as bytes, rounded to nearest (ties to even) where the dtype cannot hold them.

    Parameters
    ----------
    values : ndarray of float32, shape (slots, count)
        Finite.
    dtype : str
        ``float32`` (bit for bit), ``bfloat16``, ``float16`` (what is larger than it can hold becomes its
        largest), ``int8`` (per block of 256 values of a slot a scale, and a signed byte per value), or
        ``int4``, ``int3``, ``int2`` (per block of 64 a scale, and so many bits per value).

    Returns
    -------
    bytes
        ``encoded_size(dtype, slots, count)`` of them. Encoding what they are decoded to gives them again.
    """
    return DTYPES[dtype].encode(np.ascontiguousarray(values, dtype=np.float32))


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
    values = DTYPES[dtype].decode(data, slots, count)
    values.flags.writeable = False
    return values


def rounded(values: Values, dtype: str) -> Values:
    """Return q(v): what values of shape (slots, count) are once they have travelled."""
    return decode_values(encode_values(values, dtype), dtype, *values.shape)


def taken_over(
    received: Values, *, offered: Values, dtype: str, now: Values | None = None, mean: bool = False
) -> Values:
    """Return a member's new values after an exchange: what it received, and what it did not give away.

    That is ``received + (now - q(offered))``, and exactly ``received`` wherever the difference is zero. It
    is what quantization left out of the offer and, if the member trained on while its offer was on its way,
    what it learned since. With ``mean``, ``(q(offered) + received) * 0.5`` takes the place of ``received``:
    two that receive each other's offers then have the same mean, to the bit.

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
    mean : bool
        It takes the mean of what it offered and what it received.
    """
    if dtype == FLOAT32 and now is None and not mean:
        return received
    given = rounded(offered, dtype)
    if mean:
        received = (given + received) * np.float32(0.5)
    kept = (offered if now is None else now) - given
    # Even adding zero would lose the sign of a zero that was received.
    return np.where(kept == 0, received, received + kept)
