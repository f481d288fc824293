"""Golden vectors: what docs/protocol.md says, done again in plain Python, gives the committed numbers.

Nothing of wash_fl, numpy or protobuf is used up to the line where wash_fl itself is put to the test: this
is the member in another language that the page promises can be written. If a test here fails, a fleet in
the field would break; see ``golden/make.py``.
"""

import hashlib
import importlib.util
import json
import math
import struct
from pathlib import Path

import pytest

GOLDEN = Path(__file__).parent / "golden"
FILES = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(GOLDEN.glob("*.json"))}

_64 = 2**64 - 1


# Words


def philox4x64(counter, key):
    """Return one block of Philox4x64-10 (Salmon et al. 2011, figure and table 2)."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        first, second = 0xD2E7470EE14C6C93 * c0, 0xCA5A826395121157 * c2
        c0, c1, c2, c3 = (second >> 64) ^ c1 ^ k0, second & _64, (first >> 64) ^ c3 ^ k1, first & _64
        k0, k1 = (k0 + 0x9E3779B97F4A7C15) & _64, (k1 + 0xBB67AE8584CAA73B) & _64
    return [c0, c1, c2, c3]


def words(seed, purpose, count, index=0, member=0):
    key = (seed, int.from_bytes(purpose.encode("ascii").ljust(8, b"\0"), "little"))
    drawn = []
    block = 1
    while len(drawn) < count:
        drawn += philox4x64((block, index, member, 0), key)
        block += 1
    return drawn[:count]


def below(word, bound):
    return word * bound >> 64


def order(seed, purpose, size, index=0, member=0):
    drawn = words(seed, purpose, size, index, member)
    return sorted(range(size), key=lambda place: drawn[place])


# Schedule


def cos_pi(x):
    sign = 1.0
    if x > 0.5:
        x, sign = 1.0 - x, -1.0
    square = (x * 3.141592653589793) * (x * 3.141592653589793)
    term = total = 1.0
    for n in range(1, 12):
        term = term * (-square / ((2 * n - 1) * (2 * n)))
        total = total + term
    return sign * total


def over_time(options, exchanges, exchange):
    if options["stop_after"] and exchange > options["stop_after"]:
        return 0.0
    factor = 1.0
    if options["warmup"]:
        factor = min(1.0, exchange / options["warmup"])
    if options["timing"] == "cosine":
        last = options["stop_after"] or exchanges
        factor = factor * (0.5 + 0.5 * cos_pi(min(1.0, (exchange - 1) / last)))
    return factor


def over_depth(schedule, p, sizes):
    tensors = len(sizes)
    if schedule == "constant":
        return [p] * tensors
    if schedule in ("decreasing", "increasing"):
        falling = [p * (1.0 - depth / max(1, tensors - 1)) for depth in range(tensors)]
        return falling if schedule == "decreasing" else falling[::-1]
    assert schedule == "size-aware"
    budget = p * sum(sizes)
    for done, size in enumerate(sorted(sizes)):
        share = budget / (tensors - done)
        if share <= size:
            return [min(1.0, share / each) for each in sizes]
        budget = budget - size
    return [1.0] * tensors


def hit_rate(p, steps):
    missed, factor = 1.0, 1.0 - p
    while steps:
        if steps % 2:
            missed = missed * factor
        factor = factor * factor
        steps //= 2
    return 1.0 - missed


def fixed_point(options, exchanges, steps, sizes, exchange):
    p = options["p"] * over_time(options, exchanges, exchange)
    per_tensor = over_depth(options["schedule"], p, sizes)
    if options["p_per"] == "step":
        per_tensor = [hit_rate(each, steps) for each in per_tensor]
    return [int(each * 2**32 + 0.5) for each in per_tensor]


# Coordinates


def coordinates(seed, sizes, probabilities, exchange, run_length=1):
    header = words(seed, "coords", 2 * len(sizes), exchange)
    lengths = [run_length if size >= run_length**2 else 1 for size in sizes]
    runs = [(size + length - 1) // length for size, length in zip(sizes, lengths, strict=True)]
    counts = []
    for tensor, probability in enumerate(probabilities):
        expected = probability * runs[tensor]
        one_more = header[2 * tensor] >> 32 < expected % 2**32
        counts.append((expected >> 32) + one_more)
    drawn = iter(words(seed, "coords", 2 * len(sizes) + sum(counts), exchange)[2 * len(sizes) :])
    values, chosen = [], []
    offset = 0
    for tensor, (size, count) in enumerate(zip(sizes, counts, strict=True)):
        rotation = below(header[2 * tensor + 1], runs[tensor])
        before = len(chosen)
        for stratum in range(count):
            start, end = stratum * runs[tensor] // count, (stratum + 1) * runs[tensor] // count
            run = (start + below(next(drawn), end - start) + rotation) % runs[tensor]
            first = run * lengths[tensor]
            chosen += range(offset + first, offset + min(first + lengths[tensor], size))
        values.append(len(chosen) - before)
        offset += size
    return values, sorted(chosen)


# Mixing


def matching(seed, exchange, members):
    shuffled = order(seed, "matching", members, exchange)
    source = [0] * members
    while shuffled:
        if len(shuffled) == 3:
            a, b, c = shuffled
            source[a], source[b], source[c] = b, c, a
            break
        a, b, *shuffled = shuffled
        source[a], source[b] = b, a
    return source


def permute(seed, exchange, offers):
    """Return what each member receives of offers[member][slot][coordinate]."""
    mixed = [[list(row) for row in offer] for offer in offers]
    members, count = len(offers), len(offers[0][0])
    drawn = iter(words(seed, "permute", (members - 1) * count, exchange))
    for last in range(members - 1, 0, -1):
        for coordinate in range(count):
            partner = below(next(drawn), last + 1)
            for mine, theirs in zip(mixed[last], mixed[partner], strict=True):
                mine[coordinate], theirs[coordinate] = theirs[coordinate], mine[coordinate]
    return mixed


def average(offers, robust="none"):
    def mean(bits):
        values = [struct.unpack(">f", bytes.fromhex(each))[0] for each in bits]
        if robust != "none" and len(values) >= 3:
            away = max(1, len(values) // 4) if robust == "trimmed" else (len(values) - 1) // 2
            values = sorted(values)[away : len(values) - away]
        total = 0.0
        for each in values:
            total += each
        return struct.pack(">f", total / len(values)).hex()

    return [[mean(column) for column in zip(*rows, strict=True)] for rows in zip(*offers, strict=True)]


# Dtypes

DTYPES = ["float32", "bfloat16", "float16", "int8", "int4", "int3", "int2"]

FEW_BITS = {
    "int4": (4, [16, 15, 14, 12]),
    "int3": (3, [32, 30, 27, 24, 20]),
    "int2": (2, [64, 52, 44, 36, 28, 20]),
}
"""Bits, and what is tried as a scale."""


def float32(bits):
    return struct.unpack(">f", bytes.fromhex(bits))[0]


def bits_of(value):
    """Return the bits of a float32 as an integer; of another float, those of the nearest float32."""
    return struct.unpack("<I", struct.pack("<f", value))[0]


def from_bits(bits):
    return struct.unpack("<f", struct.pack("<I", bits))[0]


def nearest(value):
    return from_bits(bits_of(value))


def encoded(values, dtype):
    """Return the bytes of one slot's values."""
    if dtype == "float32":
        return struct.pack(f"<{len(values)}f", *values)
    if dtype == "bfloat16":
        found = b""
        for bits in map(bits_of, values):
            upper = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
            found += struct.pack("<H", (upper & 0x8000) | min(upper & 0x7FFF, 0x7F7F))
        return found
    if dtype == "float16":
        return struct.pack(f"<{len(values)}e", *(min(max(each, -65504.0), 65504.0) for each in values))
    if dtype in FEW_BITS:
        return few_bits(values, *FEW_BITS[dtype])
    scales, quotients = b"", b""
    for begin in range(0, len(values), 256):
        block = values[begin : begin + 256]
        bits = bits_of(max(map(abs, block)) / 127)
        scale = from_bits((bits + 0x3F + ((bits >> 7) & 1)) & 0xFFFFFF80)
        if scale < 2.0**-100:
            scale = 0.0
        scales += struct.pack("<f", scale)
        # A quotient of float32 in binary64, rounded to float32, is float32's own.
        steps = [round(nearest(each / scale)) if scale else 0 for each in block]
        quotients += struct.pack(f"<{len(steps)}b", *steps)
    return scales + quotients


def binary16(value):
    return struct.unpack("<e", struct.pack("<e", value))[0]


def few_bits(values, bits, candidates):
    highest, unit = 2 ** (bits - 1) - 1, candidates[0]
    limit = 65504.0 * highest
    scales, number = b"", 0
    for begin in range(0, len(values), 64):
        block = [min(max(each, -limit), limit) for each in values[begin : begin + 64]]
        first = binary16(nearest(max(map(abs, block)) / highest))
        scale = 0.0
        if first >= 2.0**-21:
            counted = [round(nearest(abs(each) / (first / unit))) for each in block]
            errors = [
                sum((each - min(highest, (each + tried // 2) // tried) * tried) ** 2 for each in counted)
                for tried in candidates
            ]
            chosen = candidates[errors.index(min(errors))]
            scale = max(binary16(first * (chosen / unit)), 2.0**-21)
        scales += struct.pack("<e", scale)
        for place, each in enumerate(block, begin):
            level = min(max(round(nearest(each / scale)), -highest), highest) if scale else 0
            number |= level % 2**bits << bits * place
    return scales + number.to_bytes((bits * len(values) + 7) // 8, "little")


def decoded(content, count, dtype):
    """Return one slot's values."""
    if dtype == "float32":
        return list(struct.unpack(f"<{count}f", content))
    if dtype == "bfloat16":
        return [from_bits(upper << 16) for upper in struct.unpack(f"<{count}H", content)]
    if dtype == "float16":
        return list(struct.unpack(f"<{count}e", content))
    if dtype in FEW_BITS:
        bits, _ = FEW_BITS[dtype]
        blocks = (count + 63) // 64
        scales = struct.unpack(f"<{blocks}e", content[: 2 * blocks])
        number = int.from_bytes(content[2 * blocks :], "little")
        codes = [number >> bits * place & 2**bits - 1 for place in range(count)]
        signed = [code - 2**bits if code >> bits - 1 else code for code in codes]
        return [level * scales[place // 64] for place, level in enumerate(signed)]
    blocks = (count + 255) // 256
    scales = struct.unpack(f"<{blocks}f", content[: 4 * blocks])
    steps = struct.unpack(f"<{count}b", content[4 * blocks :])
    return [step * scales[place // 256] for place, step in enumerate(steps)]


def taken_over(received, offered, dtype, *, mean=False):
    """Return a member's new values of one slot."""
    travelled = decoded(encoded(offered, dtype), len(offered), dtype)
    if mean:
        sums = [nearest(own + got) for own, got in zip(travelled, received, strict=True)]
        received = [nearest(each * 0.5) for each in sums]
    kept = [nearest(mine - given) for mine, given in zip(offered, travelled, strict=True)]
    return [nearest(got + left) if left else got for got, left in zip(received, kept, strict=True)]


# Names and packets


def string(text):
    encoded = text.encode("utf-8")
    return struct.pack("<I", len(encoded)) + encoded


def fingerprint(tensors, slots):
    text = b"wash-fl layout 1" + struct.pack("<I", len(tensors))
    for name, dtype, shape in tensors:
        text += string(name) + string(dtype) + struct.pack("<I", len(shape))
        text += b"".join(struct.pack("<Q", length) for length in shape)
    text += struct.pack("<I", len(slots)) + b"".join(map(string, slots))
    return hashlib.sha256(text).hexdigest()


def weights_hash(arrays):
    digest = hashlib.sha256()
    for name, dtype, shape, content in sorted(arrays):
        digest.update(string("\0".join([name, dtype, str(shape), ""])))
        digest.update(bytes.fromhex(content))
    return digest.hexdigest()


def varint(number):
    encoded = b""
    while number > 127:
        encoded += bytes([number & 127 | 128])
        number >>= 7
    return encoded + bytes([number])


def packet(*, direction, run, layout, exchange, member, values, dtype="float32", chain=0):
    """Return the bytes of a wash.v1.Slice with float32 values given as bits, by slot and coordinate."""
    run, layout = bytes.fromhex(run), bytes.fromhex(layout)
    body = b"".join(encoded([float32(bits) for bits in row], dtype) for row in values)
    kind = DTYPES.index(dtype) + 1
    hashed = struct.pack("<IiQIi", 1, direction, exchange, member, kind)
    hashed += b"".join(struct.pack("<Q", len(part)) + part for part in (run, layout, body))
    hashed += struct.pack("<Q", chain) if chain else b""
    fields = b"\x08" + varint(1) + b"\x10" + varint(direction)
    fields += b"\x1a" + varint(len(run)) + run + b"\x22" + varint(len(layout)) + layout
    fields += b"\x28" + varint(exchange)
    if member:
        fields += b"\x30" + varint(member)
    fields += b"\x38" + varint(kind)
    if body:
        fields += b"\x42" + varint(len(body)) + body
    fields += b"\x49" + hashlib.blake2b(hashed, digest_size=8).digest()
    return fields + (b"\x51" + struct.pack("<Q", chain) if chain else b"")


def number(text):
    return int(text, 16)


def cases(file, group):
    found = FILES[file][group]
    return pytest.mark.parametrize("case", found, ids=range(len(found)))


# The plain-Python member


@pytest.mark.parametrize(
    ("counter", "key", "block"),
    [
        (
            [0, 0, 0, 0],
            [0, 0],
            [0x16554D9ECA36314C, 0xDB20FE9D672D0FDC, 0xD7E772CEE186176B, 0x7E68B68AEC7BA23B],
        ),
        (
            [_64, _64, _64, _64],
            [_64, _64],
            [0x87B092C3013FE90B, 0x438C3C67BE8D0224, 0x9CC7D7C69CD777B6, 0xA09CAEBF594F0BA0],
        ),
        (
            [0x243F6A8885A308D3, 0x13198A2E03707344, 0xA4093822299F31D0, 0x082EFA98EC4E6C89],
            [0x452821E638D01377, 0xBE5466CF34E90C6C],
            [0xA528F45403E61D95, 0x38C72DBD566E9788, 0xA5A1610E72FD18B5, 0x57BD43B5E52B7FE6],
        ),
    ],
)
def test_plain_philox_gives_the_known_answers_of_its_authors(counter, key, block):
    # From kat_vectors of Random123, the authors' own library.
    assert philox4x64(counter, key) == block


@cases("philox", "words")
def test_plain_python_gives_the_golden_words(case):
    drawn = words(
        number(case["seed"]),
        case["purpose"],
        len(case["words"]),
        number(case["index"]),
        number(case["member"]),
    )
    assert drawn == [number(each) for each in case["words"]]


@cases("philox", "below")
def test_plain_python_gives_the_golden_integers_below_a_bound(case):
    assert below(number(case["word"]), case["bound"]) == case["result"]


@cases("philox", "order")
def test_plain_python_gives_the_golden_orders(case):
    drawn = order(
        number(case["seed"]), case["purpose"], case["size"], number(case["index"]), number(case["member"])
    )
    assert drawn == case["order"]


@cases("philox", "seed_of")
def test_plain_python_gives_the_golden_seeds(case):
    word = words(number(case["seed"]), case["purpose"], 1, number(case["index"]), number(case["member"]))[0]
    assert word >> 1 == number(case["result"])


@cases("schedule", "cases")
def test_plain_python_gives_the_golden_probabilities(case):
    found = fixed_point(case["options"], case["exchanges"], case["steps"], case["sizes"], case["exchange"])
    assert found == case["fixed_point"]


@cases("draw", "cases")
def test_plain_python_gives_the_golden_coordinates(case):
    check_coordinates(case, run_length=1)


@cases("run_lengths", "cases")
def test_plain_python_gives_the_golden_coordinates_in_runs(case):
    check_coordinates(case, case["run_length"])


def check_coordinates(case, run_length):
    sizes = []
    for shape in case["shapes"]:
        size = 1
        for length in shape:
            size *= length
        sizes.append(size)
    exchange = case["exchange"]
    probabilities = fixed_point(case["options"], case["exchanges"], case["steps"], sizes, exchange)
    counts, chosen = coordinates(number(case["seed"]), sizes, probabilities, exchange, run_length)
    assert counts == case["counts"]
    assert chosen[:50] == case["first"]
    packed = struct.pack(f"<{len(chosen)}q", *chosen)
    assert hashlib.sha256(packed).hexdigest() == case["sha256"]


@cases("mix", "matching")
def test_plain_python_gives_the_golden_matchings(case):
    assert matching(number(case["seed"]), case["exchange"], case["members"]) == case["source"]


@cases("mix", "permute")
def test_plain_python_gives_the_golden_permutations(case):
    assert permute(number(case["seed"]), case["exchange"], case["offers"]) == case["received"]


@cases("mix", "average")
def test_plain_python_gives_the_golden_averages(case):
    assert average(case["offers"]) == case["received"]


@cases("mix", "robust")
def test_plain_python_gives_the_golden_robust_averages(case):
    assert average(case["offers"], case["robust"]) == case["received"]


@cases("packet", "layouts")
def test_plain_python_gives_the_golden_fingerprints(case):
    assert fingerprint(case["tensors"], case["slots"]) == case["fingerprint"]


@cases("packet", "runs")
def test_plain_python_gives_the_golden_run_identities(case):
    text = case["terms"].encode("utf-8")
    assert hashlib.sha256(b"wash-fl run 1" + text).hexdigest()[:32] == case["identity"]


@cases("packet", "weights")
def test_plain_python_gives_the_golden_hash_of_weights(case):
    assert weights_hash(case["arrays"]) == case["sha256"]


@cases("packet", "packets")
def test_plain_python_gives_the_golden_packets(case):
    fields = {name: case[name] for name in ("direction", "run", "layout", "exchange", "member", "values")}
    assert packet(**fields).hex() == case["packet"]


@cases("dtypes", "values")
def test_plain_python_gives_the_golden_bytes_and_what_they_stand_for(case):
    rows = [[float32(bits) for bits in row] for row in case["values"]]
    bodies = [encoded(row, case["dtype"]) for row in rows]
    assert b"".join(bodies).hex() == case["bytes"]
    for body, row, expected in zip(bodies, rows, case["decoded"], strict=True):
        found = decoded(body, len(row), case["dtype"])
        assert [f"{bits_of(each):08x}" for each in found] == expected
        assert encoded(found, case["dtype"]) == body


@cases("dtypes", "taken_over")
def test_plain_python_gives_the_golden_values_after_an_exchange(case):
    for received, offered, expected in zip(case["received"], case["offered"], case["new"], strict=True):
        found = taken_over([*map(float32, received)], [*map(float32, offered)], case["dtype"])
        assert [f"{bits_of(each):08x}" for each in found] == expected


@cases("averaging", "means")
def test_plain_python_gives_the_golden_means_of_two(case):
    for received, offered, expected in zip(case["received"], case["offered"], case["new"], strict=True):
        pair = [*map(float32, received)], [*map(float32, offered)]
        assert [f"{bits_of(each):08x}" for each in taken_over(*pair, case["dtype"], mean=True)] == expected


@cases("averaging", "rules")
def test_plain_python_gives_the_golden_rule_of_every_exchange(case):
    last = case["stop_after"] if case["stop_after"] > 0 else case["exchanges"]
    for exchange, rule in enumerate(case["rules"], start=1):
        averages = case["average_from"] > 0 and exchange > math.floor(case["average_from"] * last)
        assert rule == ("average" if averages else "shuffle")


@cases("averaging", "runs")
def test_plain_python_gives_the_golden_run_identities_of_averages(case):
    text = case["terms"].encode("utf-8")
    assert hashlib.sha256(b"wash-fl run 1" + text).hexdigest()[:32] == case["identity"]
    exchange = json.loads(text)["exchange"]
    assert exchange["topology"] in {"pairs", "permutation"}
    assert exchange.get("averaging", "pairs") == "pairs" and exchange.get("average_from") != 0


@cases("dtypes", "packets")
def test_plain_python_gives_the_golden_packets_of_every_dtype(case):
    assert packet(**{name: each for name, each in case.items() if name != "packet"}).hex() == case["packet"]


@cases("dtypes", "runs")
def test_plain_python_gives_the_golden_run_identities_of_every_dtype(case):
    text = case["terms"].encode("utf-8")
    assert hashlib.sha256(b"wash-fl run 1" + text).hexdigest()[:32] == case["identity"]
    # What is not used is not in the text, which is that of a run of the first version.
    assert json.loads(text)["exchange"].get("dtype") != "float32"


@cases("run_lengths", "runs")
def test_plain_python_gives_the_golden_run_identities_of_every_run_length(case):
    text = case["terms"].encode("utf-8")
    assert hashlib.sha256(b"wash-fl run 1" + text).hexdigest()[:32] == case["identity"]
    assert json.loads(text)["exchange"].get("run_length") != 1


@cases("anchor", "offers")
def test_plain_python_gives_the_golden_offers_of_differences(case):
    fields = {name: each for name, each in case.items() if name != "packet"}
    assert packet(**(fields | {"chain": number(case["chain"])})).hex() == case["packet"]


@cases("anchor", "runs")
def test_plain_python_gives_the_golden_moves_of_an_anchor(case):
    dtype, rate, decay = case["dtype"], nearest(case["rate"]), nearest(case["momentum"])
    anchor = [*map(float32, case["anchor"][0])]
    error, momentum, chain = [0.0] * len(anchor), [0.0] * len(anchor), 0
    for number_, exchange in enumerate(case["exchanges"], start=1):
        places = exchange["coordinates"]
        before = [anchor[place] for place in places]
        held = [[*map(float32, row[0])] for row in exchange["held"]]
        count = float(len(held))
        offers = [decoded(encoded(differences(each, before), dtype), len(places), dtype) for each in held]
        wanted = []
        for column, place in zip(zip(*offers, strict=True), places, strict=True):
            total = 0.0
            for each in column:
                total += each
            step = nearest(total / len(held))
            if decay > 0:
                momentum[place] = nearest(nearest(decay * momentum[place]) + step)
                step = nearest(step + nearest(decay * momentum[place]))
            if rate != 1:
                step = nearest(rate * step)
            wanted.append(nearest(step + nearest(error[place] / count)))
        data = encoded(wanted, dtype)
        delta = decoded(data, len(places), dtype)
        for place, goal, moved in zip(places, wanted, delta, strict=True):
            error[place] = nearest(count * nearest(goal - moved))
            anchor[place] = nearest(anchor[place] + moved)
        content = struct.pack(f"<{len(delta)}f", *delta)
        hashed = struct.pack("<QQQ", chain, number_, len(content)) + content
        chain = int.from_bytes(hashlib.blake2b(hashed, digest_size=8).digest(), "little")
        kept = differences(differences(map(float32, exchange["now"][0]), before), offers[0])
        moved = [nearest(one + other) for one, other in zip(before, delta, strict=True)]
        new = [nearest(one + other) for one, other in zip(moved, kept, strict=True)]
        assert data.hex() == exchange["data"]
        assert hexadecimal(error[place] for place in places) == exchange["error"][0]
        assert hexadecimal(anchor) == exchange["anchor"][0]
        assert chain == number(exchange["chain"])
        assert hexadecimal(new) == exchange["new"][0]


def differences(values, others):
    return [nearest(one - other) for one, other in zip(values, others, strict=True)]


def hexadecimal(values):
    return [f"{bits_of(each):08x}" for each in values]


@cases("anchor", "deliveries")
def test_plain_python_gives_the_golden_deliveries(case):
    after, chain, whole = case["after"], number(case["chain"]), number(case["whole"])
    packets = [bytes.fromhex(each) for each in case["packets"]]
    hashed = struct.pack("<QQQ", after, chain, whole)
    hashed += b"".join(struct.pack("<Q", len(each)) + each for each in packets)
    fields = b"\x80\x01" + varint(after) if after else b""
    fields += b"\x89\x01" + struct.pack("<Q", chain) if chain else b""
    fields += b"".join(b"\x92\x01" + varint(len(each)) + each for each in packets)
    fields += b"\x99\x01" + struct.pack("<Q", whole) if whole else b""
    fields += b"\xa1\x01" + hashlib.blake2b(hashed, digest_size=8).digest()
    assert fields.hex() == case["bytes"]


@cases("anchor", "terms")
def test_plain_python_gives_the_golden_run_identity_of_an_anchor(case):
    text = case["terms"].encode("utf-8")
    assert hashlib.sha256(b"wash-fl run 1" + text).hexdigest()[:32] == case["identity"]
    assert json.loads(text)["exchange"]["reference"] == "anchor"


# wash_fl


@pytest.fixture(scope="module")
def computed():
    """Return what make.py would write with this version of wash_fl."""
    spec = importlib.util.spec_from_file_location("golden_make", GOLDEN / "make.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.vectors()


@pytest.mark.parametrize(
    "name", ["philox", "schedule", "draw", "mix", "packet", "dtypes", "averaging", "run_lengths", "anchor"]
)
def test_wash_fl_gives_the_golden_vectors(computed, name):
    assert computed[name] == FILES[name], "a deployed fleet would break: see tests/core/golden/make.py"


def test_every_golden_file_is_tested(computed):
    assert sorted(computed) == sorted(FILES)
