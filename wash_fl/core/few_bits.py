"""Values in 4, 3 or 2 bits: a few levels, and a scale for every 64 values.

A value of level m stands for ``m * scale``. A block's scale is chosen among a few: one with which its largest
value has the highest level, and smaller ones, which clip that value and are nearer to the others. The least
sum of squares decides. The sums are of integers: magnitudes are counted in fractions of the first scale, so
that no order of additions matters, and every machine chooses the same.

``docs/protocol.md``, section 5, has the operations one by one, and why encoding what bytes stand for gives
the same bytes again.
"""

from dataclasses import dataclass
from typing import Any, ClassVar, Final

import numpy as np
from numpy.typing import NDArray

from wash_fl.core.wire import exchange_pb2 as wire

Values = NDArray[np.float32]

BLOCK: Final = 64
"""Values of a slot that share one scale; the last block of a slot may have fewer."""

_SCALE: Final = np.dtype("<f2")
_LARGEST_SCALE: Final = np.float32(65504)
# Binary16 has 2**-24 and its multiples down here: from eight of them on, rounding one moves no highest level.
_SMALLEST_SCALE: Final = np.float32(2.0**-21)
_GROUP: Final = 8
"""Levels that are packed together: of so many, any number of bits is whole bytes."""
_TOGETHER: Final = 1500
"""Blocks that are worked on at a time: as many as a cache holds, and no power of two, for a cache has few
places for what lies so far apart."""


@dataclass(frozen=True)
class FewBits:
    """Levels from -(2^(bits-1) - 1) to 2^(bits-1) - 1 and a binary16 scale per block.

    Parameters
    ----------
    name : str
        As in the option ``dtype``.
    number : wire.DType
        On the wire.
    bits : int
        2, 3 or 4.
    candidates : tuple of int
        The scales that are tried, in fractions of the first, which is a power of two. On equal terms the
        earlier one is chosen.
    """

    name: str
    number: wire.DType
    bits: int
    candidates: tuple[int, ...]
    shares_scale: ClassVar[bool] = True
    block: ClassVar[int] = BLOCK

    @property
    def highest(self) -> int:
        """The highest level."""
        return (1 << self.bits - 1) - 1

    def size(self, count: int) -> int:
        """Return how many bytes a slot of so many values is: the scales, then the levels."""
        return _SCALE.itemsize * _blocks(count) + -(-self.bits * count // 8)

    def encode(self, values: Values) -> bytes:
        """Return the bytes of values of shape (slots, count)."""
        return b"".join(map(self._encode_slot, values))

    def decode(self, data: bytes, slots: int, count: int) -> Values:
        """Return values of shape (slots, count); not finite where a scale is not."""
        values = np.empty((slots, _blocks(count) * BLOCK), dtype=np.float32)
        rows = np.frombuffer(data, dtype=np.uint8).reshape(slots, self.size(count))
        for row, slot in zip(rows, values, strict=True):
            self._decode_slot(row, slot.reshape(-1, BLOCK))
        return np.ascontiguousarray(values[:, :count])

    def _encode_slot(self, values: Values) -> bytes:
        blocks = _whole(values, _blocks(len(values)) * BLOCK).reshape(-1, BLOCK)
        scales = np.empty(len(blocks), dtype=_SCALE)
        packed = np.empty((len(blocks), BLOCK * self.bits // 8), dtype=np.uint8)
        for first in range(0, len(blocks), _TOGETHER):
            here = slice(first, first + _TOGETHER)
            # A block is a column: what is done to all of them is done to long rows.
            columns = np.ascontiguousarray(blocks[here].T)
            scales[here], levels = self._levels(columns)
            packed[here] = _packed(levels, self.bits).T
        used = -(-self.bits * len(values) // 8)
        return scales.tobytes() + packed.reshape(-1)[:used].tobytes()

    def _decode_slot(self, row: NDArray[np.uint8], blocks: Values) -> None:
        scales, rest = np.split(row, [_SCALE.itemsize * len(blocks)])
        each = scales.view(_SCALE).astype(np.float32)
        bytes_each = BLOCK * self.bits // 8
        packed = _whole(rest, len(blocks) * bytes_each).reshape(-1, bytes_each)
        with np.errstate(invalid="ignore"):
            for first in range(0, len(blocks), _TOGETHER):
                here = slice(first, first + _TOGETHER)
                levels = _unpacked(np.ascontiguousarray(packed[here].T), self.bits)
                blocks[here] = (levels * each[here]).T

    def _levels(self, columns: Values) -> tuple[Values, NDArray[np.int8]]:
        """Return the scale of each block and the levels of its values, by column."""
        magnitudes = np.abs(columns)
        largest = magnitudes.max(axis=0)
        limit = np.float32(self.highest) * _LARGEST_SCALE
        if largest.max() > limit:
            return self._levels(np.clip(columns, -limit, limit))
        unit = self.candidates[0]
        whole = _binary16(largest / np.float32(self.highest))
        whole = np.where(whole < _SMALLEST_SCALE, np.float32(0), whole)
        magnitudes /= _divisors(whole / np.float32(unit))
        chosen = self._chosen(np.rint(magnitudes, out=magnitudes).astype(np.uint8))
        scales = np.maximum(_binary16(whole * chosen / np.float32(unit)), _SMALLEST_SCALE)
        scales = np.where(whole == 0, np.float32(0), scales)
        quotients = np.divide(columns, _divisors(scales), out=magnitudes)
        levels = np.rint(quotients, out=quotients).astype(np.int8)
        return scales, np.clip(levels, -self.highest, self.highest, out=levels)

    def _chosen(self, counted: NDArray[np.uint8]) -> Values:
        """Return the candidate of each block, whose magnitudes are counted in the first one's fractions."""
        first, *others = self.candidates
        chosen = np.full(counted.shape[1], first, dtype=np.float32)
        least = self._errors(counted, first)
        for candidate in others:
            errors = self._errors(counted, candidate)
            np.copyto(chosen, np.float32(candidate), where=errors < least)
            np.minimum(least, errors, out=least)
        return chosen

    def _errors(self, counted: NDArray[np.uint8], candidate: int) -> NDArray[np.int32]:
        """Return by block the sum of the squares of what a candidate leaves out."""
        levels = (counted + np.uint8(candidate // 2)) // np.uint8(candidate)
        # With a scalar np.minimum takes five times as long.
        np.clip(levels, np.uint8(0), np.uint8(self.highest), out=levels)
        levels *= np.uint8(candidate)
        left = np.subtract(counted, levels, out=levels).view(np.int8).astype(np.int16)
        left *= left
        # At most 63, so that eight squares of them fit into 16 bits.
        eighths = left.reshape(_GROUP, -1).sum(axis=0, dtype=np.int16)
        errors: NDArray[np.int32] = eighths.reshape(BLOCK // _GROUP, -1).sum(axis=0, dtype=np.int32)
        return errors


INT4: Final = FewBits("int4", wire.DTYPE_INT4, 4, (16, 15, 14, 12))
INT3: Final = FewBits("int3", wire.DTYPE_INT3, 3, (32, 30, 27, 24, 20))
INT2: Final = FewBits("int2", wire.DTYPE_INT2, 2, (64, 52, 44, 36, 28, 20))


def _blocks(count: int) -> int:
    return -(-count // BLOCK)


def _whole(values: NDArray[Any], size: int) -> NDArray[Any]:
    """Return values with zeros after them, so many in all."""
    if len(values) == size:
        return values
    padded = np.zeros(size, dtype=values.dtype)
    padded[: len(values)] = values
    return padded


def _binary16(values: Values) -> Values:
    """Return values as the nearest that binary16 has, ties to even."""
    return values.astype(np.float16).astype(np.float32)


def _divisors(scales: Values) -> Values:
    """Return scales to divide by: what is divided by infinity is zero, in the blocks without a scale."""
    return np.where(scales > 0, scales, np.float32(np.inf))


def _places(bits: int) -> list[tuple[int, int]]:
    """Return for each level of a group its first byte, and the bit in it at which the level begins."""
    return [divmod(bits * place, 8) for place in range(_GROUP)]


def _packed(levels: NDArray[np.int8], bits: int) -> NDArray[np.uint8]:
    """Return levels by column, shape (64, blocks), as bytes by column: the low bits of a byte first."""
    codes = levels.view(np.uint8) & np.uint8(2**bits - 1)
    codes = codes.reshape(BLOCK // _GROUP, _GROUP, -1)
    packed = np.zeros((BLOCK // _GROUP, bits, codes.shape[2]), dtype=np.uint8)
    for place, (byte, bit) in enumerate(_places(bits)):
        packed[:, byte] |= codes[:, place] << np.uint8(bit)
        if bit + bits > 8:
            packed[:, byte + 1] |= codes[:, place] >> np.uint8(8 - bit)
    return packed.reshape(BLOCK * bits // 8, -1)


def _unpacked(packed: NDArray[np.uint8], bits: int) -> NDArray[np.int8]:
    """Return what :func:`_packed` was given."""
    packed = packed.reshape(BLOCK // _GROUP, bits, -1)
    codes = np.empty((BLOCK // _GROUP, _GROUP, packed.shape[2]), dtype=np.uint8)
    for place, (byte, bit) in enumerate(_places(bits)):
        # The code's bits come to the top; those of others fall off, or are shifted out below.
        shift = 8 - bits - bit
        if shift >= 0:
            codes[:, place] = packed[:, byte] << np.uint8(shift)
        else:
            codes[:, place] = packed[:, byte] >> np.uint8(-shift)
            codes[:, place] |= packed[:, byte + 1] << np.uint8(8 + shift)
    # An arithmetic shift: the top bit is the sign.
    return (codes.view(np.int8) >> np.int8(8 - bits)).reshape(BLOCK, -1)
