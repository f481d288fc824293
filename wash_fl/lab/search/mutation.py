"""Damage to packets: what a network, a disk, another program or an attacker may make of one.

Every mutation takes a packet, another valid one to mix it with, and dice, and returns bytes. They know what a
protobuf message looks like, so that much of the damage goes deeper than its first byte.
"""

import hashlib
import struct
from collections.abc import Callable, Iterator, Mapping
from typing import Final

from wash_fl.core import philox
from wash_fl.core.wire import exchange_pb2 as wire


class Dice:
    """Random integers of one run, from the words of :mod:`wash_fl.core.philox`."""

    _BATCH = 1 << 10

    def __init__(self, seed: int, purpose: str, member: int = 0) -> None:
        self._words = self._stream(seed, purpose, member)

    def below(self, bound: int) -> int:
        """Return an integer from 0 to bound - 1."""
        return (next(self._words) * bound) >> 64

    def _stream(self, seed: int, purpose: str, member: int) -> Iterator[int]:
        index = 0
        while True:
            index += 1
            yield from philox.words(seed, purpose, self._BATCH, index=index, member=member).tolist()


Mutation = Callable[[bytes, bytes, Dice], bytes]

_VARINT: Final = 0
_FIXED64: Final = 1
_BYTES: Final = 2


def fields(packet: bytes) -> list[bytes]:
    """Cut a valid packet into its fields, each with its tag."""
    found, begin = [], 0
    while begin < len(packet):
        end = _after_varint(packet, begin)
        kind = packet[begin] & 7
        if kind == _VARINT:
            end = _after_varint(packet, end)
        elif kind == _FIXED64:
            end += 8
        else:
            content = _after_varint(packet, end)
            end = content + _number(packet[end:content])
        found.append(packet[begin:end])
        begin = end
    return found


def flip_bits(packet: bytes, other: bytes, dice: Dice) -> bytes:
    """Change 1 to 8 bits."""
    changed = bytearray(packet)
    for _ in range(1 + dice.below(8)):
        changed[dice.below(len(changed))] ^= 1 << dice.below(8)
    return bytes(changed)


def flip_header(packet: bytes, other: bytes, dice: Dice) -> bytes:
    """Change a bit before the values or after them."""
    places = [*range(min(64, len(packet))), *range(max(0, len(packet) - 9), len(packet))]
    changed = bytearray(packet)
    changed[places[dice.below(len(places))]] ^= 1 << dice.below(8)
    return bytes(changed)


def truncate(packet: bytes, other: bytes, dice: Dice) -> bytes:
    """Cut off the end."""
    return packet[: dice.below(len(packet))]


def extend(packet: bytes, other: bytes, dice: Dice) -> bytes:
    """Add bytes at the end: zeros, random ones, or another packet."""
    kind = dice.below(3)
    if kind == 0:
        return packet + bytes(1 + dice.below(16))
    return packet + (other if kind == 1 else random_bytes(packet, other, dice)[:16])


def swap_bytes(packet: bytes, other: bytes, dice: Dice) -> bytes:
    """Exchange two spans of 1 to 8 bytes."""
    length = 1 + dice.below(8)
    first, second = sorted(dice.below(len(packet) - length + 1) for _ in range(2))
    if second < first + length:
        return packet[:first] + packet[first : second + length][::-1] + packet[second + length :]
    return (
        packet[:first]
        + packet[second : second + length]
        + packet[first + length : second]
        + packet[first : first + length]
        + packet[second + length :]
    )


def remove_span(packet: bytes, other: bytes, dice: Dice) -> bytes:
    """Leave out 1 to 16 bytes in the middle."""
    begin = dice.below(len(packet))
    return packet[:begin] + packet[begin + 1 + dice.below(16) :]


def repeat_span(packet: bytes, other: bytes, dice: Dice) -> bytes:
    """Repeat 1 to 16 bytes in the middle."""
    begin = dice.below(len(packet))
    end = begin + 1 + dice.below(16)
    return packet[:end] + packet[begin:]


def splice(packet: bytes, other: bytes, dice: Dice) -> bytes:
    """Begin as one packet and end as the other, at the same place or at any."""
    place = dice.below(len(packet) + 1)
    return packet[:place] + other[place if dice.below(2) else dice.below(len(other) + 1) :]


def take_field(packet: bytes, other: bytes, dice: Dice) -> bytes:
    """Put a field of the other packet in place of one."""
    mine, theirs = fields(packet), fields(other)
    mine[dice.below(len(mine))] = theirs[dice.below(len(theirs))]
    return b"".join(mine)


def repeat_field(packet: bytes, other: bytes, dice: Dice) -> bytes:
    """Say a field twice, the second time perhaps as the other packet does."""
    mine = fields(packet)
    source = mine if dice.below(2) else fields(other)
    mine.insert(dice.below(len(mine) + 1), source[dice.below(len(source))])
    return b"".join(mine)


def drop_field(packet: bytes, other: bytes, dice: Dice) -> bytes:
    """Leave a field out."""
    mine = fields(packet)
    del mine[dice.below(len(mine))]
    return b"".join(mine)


def reorder_fields(packet: bytes, other: bytes, dice: Dice) -> bytes:
    """Say the same in another order."""
    mine = fields(packet)
    return b"".join(mine.pop(dice.below(len(mine))) for _ in range(len(mine)))


def pad_number(packet: bytes, other: bytes, dice: Dice) -> bytes:
    """Write a tag, a number or a length with more bytes than it needs."""
    mine = fields(packet)
    chosen = dice.below(len(mine))
    field = mine[chosen]
    begin = 0
    if field[0] & 7 != _FIXED64 and dice.below(2):
        begin = _after_varint(field, 0)
    end = _after_varint(field, begin)
    padding = b"\x80" * dice.below(10) + b"\x00"
    mine[chosen] = field[: end - 1] + bytes([field[end - 1] | 0x80]) + padding + field[end:]
    return b"".join(mine)


def add_unknown(packet: bytes, other: bytes, dice: Dice) -> bytes:
    """Add a field that nobody knows, or one that says what is so anyway (member 0)."""
    content = bytes(dice.below(256) & 0x7F for _ in range(dice.below(12)))
    tag = _varint((dice.below(40) << 3) | (0, 2, 3, 4, 5, 6, 7)[dice.below(7)])
    added = (
        _varint((dice.below(30) + 1) << 3 | _BYTES) + _varint(len(content)) + content,
        _varint((dice.below(30) + 1) << 3 | _VARINT) + _varint(dice.below(2**64)),
        tag + content,
        b"\x30\x00",
    )[dice.below(4)]
    mine = fields(packet)
    mine.insert(dice.below(len(mine) + 1), added)
    return b"".join(mine)


def random_bytes(packet: bytes, other: bytes, dice: Dice) -> bytes:
    """No packet at all."""
    words = [dice.below(2**64) for _ in range(1 + dice.below(12))]
    return struct.pack(f"<{len(words)}Q", *words)[dice.below(8) :]


# Values that are no numbers; where values share a scale, one that is none, and two that no encoder chooses.
_STRANGE: Final[Mapping[int, tuple[bytes, bytes, bytes]]] = {
    wire.DTYPE_FLOAT32: (b"\0\0\xc0\x7f", b"\0\0\x80\x7f", b"\0\0\x80\xff"),
    wire.DTYPE_BFLOAT16: (b"\xc0\x7f", b"\x80\x7f", b"\x80\xff"),
    wire.DTYPE_FLOAT16: (b"\0\x7e", b"\0\x7c", b"\0\xfc"),
    wire.DTYPE_INT8: (b"\0\0\xc0\x7f", b"\x01\0\x80\x3f", b"\0\0\x80\xbf"),
    **dict.fromkeys((wire.DTYPE_INT4, wire.DTYPE_INT3, wire.DTYPE_INT2), (b"\0\x7e", b"\x01\0", b"\0\xbc")),
}


def reseal(packet: bytes, other: bytes, dice: Dice) -> bytes:
    """Lie in one field, or send values that are none, under a checksum that fits."""
    message = wire.Slice.FromString(packet)
    kind = dice.below(8)
    if kind == 0:
        message.version += 1 + dice.below(9)
    elif kind == 1:
        offer = message.direction == wire.DIRECTION_OFFER
        message.direction = wire.DIRECTION_DELIVERY if offer else wire.DIRECTION_OFFER
    elif kind == 2:
        message.run = bytes([message.run[0] ^ 1]) + message.run[1:]
    elif kind == 3:
        message.layout = message.layout[1:] + message.layout[:1]
    elif kind == 4:
        message.member = message.member ^ 1
    elif kind == 5:
        message.dtype = wire.DTYPE_UNSPECIFIED
    elif kind == 6:
        message.chain ^= 1 << dice.below(64)
    else:
        strange = _STRANGE[message.dtype][dice.below(3)]
        whole = len(message.values) // len(strange)
        place = len(strange) * dice.below(whole) if whole and message.dtype < wire.DTYPE_INT8 else 0
        message.values = message.values[:place] + strange + message.values[place + len(strange) :]
    return seal(message)


def seal(message: wire.Slice) -> bytes:
    """Return the packet of a message with the checksum that fits it, as docs/protocol.md has it."""
    head = (message.version, message.direction, message.exchange, message.member, message.dtype)
    digest = hashlib.blake2b(struct.pack("<IiQIi", *head), digest_size=8)
    for part in (message.run, message.layout, message.values):
        digest.update(struct.pack("<Q", len(part)) + part)
    digest.update(struct.pack("<Q", message.chain) if message.chain else b"")
    message.checksum = int.from_bytes(digest.digest(), "little")
    return message.SerializeToString(deterministic=True)


MUTATIONS: Final[Mapping[str, Mutation]] = {
    "bit flips": flip_bits,
    "header flip": flip_header,
    "truncated": truncate,
    "extended": extend,
    "bytes swapped": swap_bytes,
    "span removed": remove_span,
    "span repeated": repeat_span,
    "spliced": splice,
    "field of another": take_field,
    "field repeated": repeat_field,
    "field dropped": drop_field,
    "fields reordered": reorder_fields,
    "number padded": pad_number,
    "unknown field": add_unknown,
    "random bytes": random_bytes,
    "resealed": reseal,
}


def _varint(number: int) -> bytes:
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*encoded, number])


def _number(varint: bytes) -> int:
    return sum((byte & 0x7F) << (7 * place) for place, byte in enumerate(varint))


def _after_varint(packet: bytes, begin: int) -> int:
    while packet[begin] & 0x80:
        begin += 1
    return begin + 1
