"""The encodings of values, one class for each, and all of them by the name that the option ``dtype`` has.

Only integers and float32's own +, -, *, / and rounding to an integer are used, which IEEE 754 defines to the
last bit: an x86 server and an Arm device get the same bytes. ``docs/protocol.md``, section 5, has them one by
one.
"""

from collections.abc import Mapping
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from wash_fl.core.few_bits import INT2, INT3, INT4
from wash_fl.core.wire import exchange_pb2 as wire

Values = NDArray[np.float32]

FLOAT32: Final = "float32"


class Dtype(Protocol):
    """An encoding. What bytes stand for it encodes to the same bytes again."""

    @property
    def name(self) -> str:
        """Its name in the option ``dtype``."""

    @property
    def number(self) -> wire.DType:
        """Its number on the wire."""

    @property
    def shares_scale(self) -> bool:
        """Whether values that lie side by side share a scale: single ones that swap cannot keep theirs."""

    @property
    def block(self) -> int:
        """How many values of a slot share a scale."""

    @property
    def highest(self) -> int:
        """The highest multiple of its scale that a value can be; 0 where a value has its own."""

    def size(self, count: int) -> int:
        """Return how many bytes a slot of so many values is."""

    def encode(self, values: Values) -> bytes:
        """Return the bytes of finite float32 values of shape (slots, count), C-contiguous."""

    def decode(self, data: bytes, slots: int, count: int) -> Values:
        """Return the float32 values of ``slots * size(count)`` bytes, whoever made them."""


class Float32:
    """Bit for bit."""

    name = FLOAT32
    number = wire.DTYPE_FLOAT32
    shares_scale = False
    block, highest = 1, 0

    def size(self, count: int) -> int:
        """Return how many bytes a slot is."""
        return 4 * count

    def encode(self, values: Values) -> bytes:
        """Return the bytes of values."""
        return values.astype("<f4", copy=False).tobytes()

    def decode(self, data: bytes, slots: int, count: int) -> Values:
        """Return the values of bytes."""
        return np.frombuffer(data, dtype="<f4").reshape(slots, count).astype(np.float32, copy=False)


class BFloat16:
    """The upper half of a float32, rounded to nearest (ties to even)."""

    name = "bfloat16"
    number = wire.DTYPE_BFLOAT16
    shares_scale = False
    block, highest = 1, 0
    largest: Final = np.uint32(0x7F7F)

    def size(self, count: int) -> int:
        """Return how many bytes a slot is."""
        return 2 * count

    def encode(self, values: Values) -> bytes:
        """Return the bytes of values."""
        bits = values.view(np.uint32)
        upper = (bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)
        # Rounding up must not make an infinity of the largest values.
        sign, magnitude = upper & np.uint32(0x8000), upper & np.uint32(0x7FFF)
        halves: NDArray[np.uint16] = (sign | np.minimum(magnitude, self.largest)).astype("<u2")
        return halves.tobytes()

    def decode(self, data: bytes, slots: int, count: int) -> Values:
        """Return the values of bytes."""
        bits = np.frombuffer(data, dtype="<u2").astype(np.uint32) << np.uint32(16)
        return bits.view(np.float32).reshape(slots, count)


class Float16:
    """Binary16; what is larger than it can hold becomes its largest."""

    name = "float16"
    number = wire.DTYPE_FLOAT16
    shares_scale = False
    block, highest = 1, 0
    largest: Final = np.float32(65504)

    def size(self, count: int) -> int:
        """Return how many bytes a slot is."""
        return 2 * count

    def encode(self, values: Values) -> bytes:
        """Return the bytes of values."""
        return np.clip(values, -self.largest, self.largest).astype("<f2").tobytes()

    def decode(self, data: bytes, slots: int, count: int) -> Values:
        """Return the values of bytes."""
        return np.frombuffer(data, dtype="<f2").astype(np.float32).reshape(slots, count)


class Int8:
    """A float32 scale per block of values of a slot, and a signed byte per value."""

    name = "int8"
    number = wire.DTYPE_INT8
    shares_scale = True
    block: Final = 256
    highest: Final = 127
    smallest_scale: Final = np.float32(2.0**-100)

    def size(self, count: int) -> int:
        """Return how many bytes a slot is: the scales of all its blocks, then the bytes of its values."""
        return 4 * self._blocks(count) + count

    def encode(self, values: Values) -> bytes:
        """Return the bytes of values."""
        slots, count = values.shape
        padded = np.zeros((slots, self._blocks(count) * self.block), dtype=np.float32)
        padded[:, :count] = values
        blocks = padded.reshape(slots, self._blocks(count), self.block)
        scales = self._scales(np.abs(blocks).max(axis=2))
        # What is divided by infinity is zero: the blocks without a scale.
        divisors = np.where(scales > 0, scales, np.float32(np.inf))[..., np.newaxis]
        quotients = np.rint(blocks / divisors).astype(np.int8).reshape(padded.shape)[:, :count]
        rows = zip(scales.astype("<f4"), quotients, strict=True)
        return b"".join(scale.tobytes() + row.tobytes() for scale, row in rows)

    def decode(self, data: bytes, slots: int, count: int) -> Values:
        """Return the values of bytes."""
        rows = np.frombuffer(data, dtype=np.uint8).reshape(slots, self.size(count))
        scales, quotients = np.split(rows, [4 * self._blocks(count)], axis=1)
        each = np.repeat(np.ascontiguousarray(scales).view("<f4"), self.block, axis=1)[:, :count]
        with np.errstate(over="ignore", invalid="ignore"):
            return quotients.view(np.int8).astype(np.float32) * each.astype(np.float32, copy=False)

    def _blocks(self, count: int) -> int:
        return -(-count // self.block)

    def _scales(self, largest: Values) -> Values:
        """Return the scale of blocks with these largest magnitudes; zero where that would be very small.

        It has 17 significant bits, so that its product with a byte is exact. Decoded values have the same
        scale again then, to the bit, and the same bytes.
        """
        bits = (largest / np.float32(self.highest)).view(np.uint32)
        bits = (bits + np.uint32(0x3F) + ((bits >> np.uint32(7)) & np.uint32(1))) & ~np.uint32(0x7F)
        scales = bits.view(np.float32)
        return np.where(scales < self.smallest_scale, np.float32(0), scales)


_ALL: Final[tuple[Dtype, ...]] = (Float32(), BFloat16(), Float16(), Int8(), INT4, INT3, INT2)

DTYPES: Final[Mapping[str, Dtype]] = {each.name: each for each in _ALL}
"""Every encoding by its name."""

# Every number of the wire has one encoding.
assert {each.number for each in _ALL} | {wire.DTYPE_UNSPECIFIED} == {*wire.DType.values()}
assert len(DTYPES) == len(_ALL) == len(wire.DType.values()) - 1
