"""Writes the golden vectors: ``python tests/core/golden/make.py``.

They pin down what docs/protocol.md specifies. Devices in the field compute the same numbers on their own,
so a vector that changes is a protocol that changes: members of the old and of the new version would draw
other coordinates from the same seed, and refuse or, worse, mix up each other's slices. Add vectors; never
change one unless the version of the contract changes as well.

Numbers of 64 bits and float32 values are written as hexadecimal text, big end first, for JSON readers
that keep numbers as doubles.
"""

import hashlib
import json
from pathlib import Path

import numpy as np

from wash_fl.config import ExchangeConfig
from wash_fl.core import philox
from wash_fl.core.anchor import ServerAnchor, difference, taken_part
from wash_fl.core.codec import encode_values, rounded, taken_over
from wash_fl.core.draw import Draw
from wash_fl.core.dtypes import DTYPES
from wash_fl.core.identity import weights_sha256
from wash_fl.core.layout import Layout, TensorSpec, layout_of
from wash_fl.core.mix import average, matching, permute
from wash_fl.core.packet import Direction, Joined, Slice, encode, join
from wash_fl.core.schedule import Schedule
from wash_fl.protocol.terms import Terms, run_identity

FOLDER = Path(__file__).parent
LARGEST_SEED = 2**63 - 1
ABOUT = (
    "Golden vectors of the wash_fl protocol (docs/protocol.md), written by tests/core/golden/make.py. "
    "Deployed members compute these on their own: changing one breaks every fleet in the field."
)
PLAIN = {
    "p": 0.05,
    "p_per": "exchange",
    "schedule": "decreasing",
    "timing": "steady",
    "warmup": 0,
    "stop_after": 0,
    "mix": "shuffle",
    "topology": "pairs",
    "exchange_optimizer": False,
    "run_length": 1,
}
"""Options in full: a default is free to change, a vector is not."""

RESNET_LIKE = [[64, 3, 7, 7], [64], [64], [128, 64, 3, 3], [128], [512, 512, 3, 3], [512], [10, 512], [10]]


def exchange_config(**options):
    return ExchangeConfig(**(PLAIN | options))


def hex64(word):
    return f"{int(word):016x}"


def hex32(values):
    """Return float32 values of any shape as nested lists of their bits."""
    bits = np.ascontiguousarray(values, dtype=np.float32).view(np.uint32)
    return np.vectorize(lambda each: f"{each:08x}", otypes=[object])(bits).tolist()


def philox_vectors():
    streams = [
        (0, "coords", 0, 0, 9),
        (1, "coords", 1, 0, 5),
        (2**63 - 1, "matching", 7, 0, 6),
        (2**64 - 1, "a", 2**64 - 1, 2**32 - 1, 4),
        (42, "order", 3, 2, 4),
    ]
    bounds = [1, 2, 3, 10, 1000, 2**31 - 1, 2**32 - 1]
    drawn = philox.words(5, "below", len(bounds))
    return {
        "words": [
            {
                "seed": hex64(seed),
                "purpose": purpose,
                "index": hex64(index),
                "member": hex64(member),
                "words": [
                    hex64(word) for word in philox.words(seed, purpose, count, index=index, member=member)
                ],
            }
            for seed, purpose, index, member, count in streams
        ],
        "below": [
            {"word": hex64(word), "bound": bound, "result": int(philox.below(word, np.uint64(bound)))}
            for word, bound in zip([*drawn, np.uint64(0), np.uint64(2**64 - 1)], [*bounds, 7, 7], strict=True)
        ],
        "order": [
            {
                "seed": hex64(seed),
                "purpose": "order",
                "size": size,
                "index": hex64(index),
                "member": hex64(member),
                "order": philox.order(seed, "order", size, index=index, member=member).tolist(),
            }
            for seed, size, index, member in [(0, 1, 0, 0), (3, 10, 2, 1), (LARGEST_SEED, 33, 9, 4)]
        ],
        "seed_of": [
            {
                "seed": hex64(seed),
                "purpose": "init",
                "index": hex64(index),
                "member": hex64(1),
                "result": hex64(philox.seed_of(seed, "init", index=index, member=1)),
            }
            for seed, index in [(0, 0), (LARGEST_SEED, 12)]
        ],
    }


def schedule_vectors():
    sizes = [27, 8, 1000, 3, 64, 10]
    cases = [
        ({"p": 0.1}, 30, 24, [1, 30]),
        ({"p": 0.05, "schedule": "constant"}, 30, 24, [1]),
        ({"p": 0.3, "schedule": "increasing"}, 30, 24, [1]),
        ({"p": 0.05, "schedule": "size-aware"}, 30, 24, [1]),
        ({"p": 0.9, "schedule": "size-aware"}, 30, 24, [1]),
        ({"p": 0.001, "p_per": "step", "schedule": "constant"}, 30, 100, [1]),
        ({"p": 0.01, "p_per": "step", "timing": "cosine"}, 10, 7, [1, 4, 6, 10]),
        ({"p": 0.2, "timing": "cosine", "warmup": 3, "stop_after": 8}, 20, 1, [1, 2, 3, 5, 8, 9]),
        ({"p": 1.0, "schedule": "constant", "warmup": 7}, 20, 1, [1, 3, 6, 7, 20]),
    ]
    return {
        "cases": [
            {
                "options": timed(options),
                "exchanges": exchanges,
                "steps": steps,
                "sizes": sizes,
                "exchange": exchange,
                "fixed_point": schedule_of(options, exchanges, steps)
                .fixed_point(sized(sizes), exchange)
                .tolist(),
            }
            for options, exchanges, steps, numbers in cases
            for exchange in numbers
        ]
        + [
            {
                "options": timed({"p": 0.25, "schedule": name}),
                "exchanges": 5,
                "steps": 1,
                "sizes": [12],
                "exchange": 1,
                "fixed_point": schedule_of({"p": 0.25, "schedule": name}, 5, 1)
                .fixed_point(sized([12]), 1)
                .tolist(),
            }
            for name in ("decreasing", "increasing", "constant", "size-aware")
        ]
    }


def schedule_of(options, exchanges, steps):
    return Schedule(exchange_config(**options), exchanges, steps)


def timed(options):
    """Return the options that a schedule depends on, in full."""
    config = exchange_config(**options)
    names = ("p", "p_per", "schedule", "timing", "warmup", "stop_after")
    return {name: getattr(config, name) for name in names}


def sized(sizes):
    return layout_of([(str(number), (size,)) for number, size in enumerate(sizes)])


def draw_vectors():
    small = [[5], [1], [2, 3], [7]]
    cases = [
        (0, small, {"p": 0.4}, 10, 3, [1, 2, 10]),
        (1, small, {"p": 0.4, "schedule": "constant"}, 10, 3, [1]),
        (1, small, {"p": 1.0, "schedule": "constant"}, 10, 3, [1]),
        (1, small, {"p": 0.0, "schedule": "constant"}, 10, 3, [1]),
        (LARGEST_SEED, [[10]], {"p": 0.25, "schedule": "size-aware"}, 10, 3, [1, 2, 3]),
        (7, [[1]], {"p": 0.5}, 10, 3, [1, 2, 3, 4]),
        (9, [[37], [11]], {"p": 0.05, "p_per": "step", "timing": "cosine"}, 8, 5, [3, 8]),
        (2024, RESNET_LIKE, {"p": 0.01}, 100, 1, [17]),
        (2024, RESNET_LIKE, {"p": 0.0005, "schedule": "size-aware"}, 100, 1, [100]),
        (3, [[2**31 - 1], [4]], {"p": 1e-8, "schedule": "constant"}, 100, 1, [6]),
    ]
    return {"cases": [draw_vector(case, exchange) for *case, exchanges in cases for exchange in exchanges]}


def draw_vector(case, exchange):
    seed, shapes, options, exchanges, steps = case
    layout = layout_of([(str(number), shape) for number, shape in enumerate(shapes)])
    coordinates = Draw(seed, layout, schedule_of(options, exchanges, steps)).coordinates(exchange)
    return {
        "seed": hex64(seed),
        "shapes": shapes,
        "options": timed(options),
        "exchanges": exchanges,
        "steps": steps,
        "exchange": exchange,
        "counts": np.diff(layout.boundaries(coordinates)).tolist(),
        # Long lists by their beginning, and the SHA-256 of all as little-endian int64.
        "first": coordinates[:50].tolist(),
        "sha256": hashlib.sha256(coordinates.astype("<i8").tobytes()).hexdigest(),
    }


def run_length_vectors():
    """Return draws in runs of 16 and 64 values, of tensors around the sizes at which something changes."""
    around = [[15], [16], [255], [256], [257], [16, 17], [4095], [64, 64], [4097], [64, 65], [1]]
    cases = [
        (0, around, {"p": 0.1, "schedule": "constant"}, 10, 3, [1, 2, 3]),
        (5, around, {"p": 0.9, "schedule": "constant"}, 10, 3, [1]),
        (5, around, {"p": 1.0, "schedule": "constant"}, 10, 3, [1]),
        (5, around, {"p": 0.0, "schedule": "constant"}, 10, 3, [1]),
        # One run or none of each tensor.
        (8, [[5000], [5003]], {"p": 1e-3, "schedule": "constant"}, 10, 3, [1, 2, 3, 4]),
        (LARGEST_SEED, RESNET_LIKE, {"p": 0.01}, 100, 1, [17]),
        (2024, RESNET_LIKE, {"p": 0.0005, "schedule": "size-aware"}, 100, 1, [100]),
        (3, [[2**31 - 1], [4]], {"p": 1e-6, "schedule": "constant"}, 100, 1, [6]),
    ]
    return {
        "cases": [
            {"run_length": length}
            | draw_vector((seed, shapes, {**options, "run_length": length}, *rest), exchange)
            for length in (16, 64)
            for seed, shapes, options, *rest, exchanges in cases
            for exchange in exchanges
        ],
        "runs": [
            {"terms": each.to_json(), "identity": run_identity(each).hex()}
            for each in (
                Terms(
                    run_name="long",
                    seed=7,
                    members=4,
                    rounds=30,
                    local_steps=24,
                    exchange=exchange_config(mix="average", topology="all", run_length=length),
                )
                for length in (1, 16, 64)
            )
        ],
    }


def mix_vectors():
    offers = {
        members: np.stack(
            [
                np.frombuffer(philox.words(members, "offers", 5, member=member).tobytes(), "<i2")
                .astype(np.float32)[: 2 * 7]
                .reshape(2, 7)
                / np.float32(1000)
                for member in range(members)
            ]
        )
        for members in (2, 3, 5)
    }
    return {
        "matching": [
            {
                "seed": hex64(seed),
                "exchange": exchange,
                "members": members,
                "source": matching(members, seed=seed, exchange=exchange),
            }
            for seed, exchange, members in [
                (0, 1, 2),
                (0, 1, 3),
                (0, 2, 4),
                (1, 1, 5),
                (LARGEST_SEED, 1000, 8),
                (6, 3, 11),
            ]
        ],
        "permute": [
            {
                "seed": hex64(members),
                "exchange": 4,
                "offers": hex32(given),
                "received": hex32(np.stack(permute(list(given), seed=members, exchange=4))),
            }
            for members, given in offers.items()
        ],
        "average": [
            {"offers": hex32(given), "received": hex32(average(list(given)))} for given in offers.values()
        ],
        "robust": [
            {"robust": robust, "offers": hex32(given), "received": hex32(average(list(given), robust))}
            for robust in ("trimmed", "median")
            for given in offers.values()
        ],
    }


def packet_vectors():
    layouts = [
        layout_of([("weight", (2, 3)), ("bias", (2,))]),
        layout_of([("weight", (2, 3)), ("bias", (2,))], ("parameter", "momentum_buffer")),
        Layout((TensorSpec("größe", (), "float32"), TensorSpec("fc.1.weight", (10, 512)))),
    ]
    terms = [
        Terms(
            run_name="Nürnberg",
            seed=42,
            members=4,
            rounds=30,
            local_steps=24,
            exchange=exchange_config(),
        ),
        Terms(
            run_name="",
            seed=LARGEST_SEED,
            members=2,
            rounds=1,
            local_steps=1,
            exchange=exchange_config(p=1e-5, mix="average", topology="all", exchange_optimizer=True),
        ),
    ]
    values = np.array([[1.0, -0.0, 1e-45, 3.4028235e38], [0.1, -2.5, 1e-38, 7]], dtype=np.float32)
    packets = [
        (Direction.OFFER, 0, 1, 0, values[:1]),
        (Direction.DELIVERY, 1, 300, 3, values),
        (Direction.OFFER, 2, 2**40, 2**31, values[:1, :0]),
    ]
    weights = {"fc.weight": values, "fc.bias": values[0], "steps": np.array(7, dtype=np.int64)}
    return {
        "layouts": [
            {
                "tensors": [[each.name, each.dtype, list(each.shape)] for each in layout.tensors],
                "slots": list(layout.slots),
                "fingerprint": layout.fingerprint.hex(),
            }
            for layout in layouts
        ],
        "runs": [{"terms": each.to_json(), "identity": run_identity(each).hex()} for each in terms],
        "packets": [
            {
                "direction": direction.value,
                "run": run_identity(terms[0]).hex(),
                "layout": layouts[number].fingerprint.hex(),
                "exchange": exchange,
                "member": member,
                "values": hex32(given) if given.size else [[]],
                "packet": encode(
                    Slice(direction, run_identity(terms[0]), layouts[number], exchange, member, given)
                ).hex(),
            }
            for direction, number, exchange, member, given in packets
        ],
        "weights": [
            {
                "arrays": [
                    [name, array.dtype.str, list(array.shape), array.tobytes().hex()]
                    for name, array in weights.items()
                ],
                "sha256": weights_sha256(weights),
            }
        ],
    }


def dtype_vectors():
    special = np.array(
        [
            [1.0, -1.0, 0.0, -0.0, 0.1, -2.5, 1.00390625, 1.01171875, 1.00048828125, 1.00146484375],
            [65504.0, 65519.0, 65520.0, -1e6, 6.1e-5, 5.9e-8, 2.9e-8, -3e-8, 3.0, 1e-20],
            [3.4028235e38, -3.4028235e38, 3.39e38, 1.0, 1e30, -2e36, 1.4e36, 0.0, 1e-45, 5.0],
            [1e-45, -1e-40, 1e-38, 0.0, -0.0, 2e-39, 1e-44, 3e-41, 1e-31, -1e-29],
            [127.0, 0.5, 1.5, 2.5, -0.5, -1.5, 63.5, 64.5, -126.5, 126.49],
        ],
        dtype=np.float32,
    )
    # In int8 a block and two values of the next with another scale, and a slot whose second block is zero.
    drawn = np.frombuffer(philox.words(1, "values", 258).tobytes(), "<i2")[: 2 * 258].astype(np.float32)
    drawn = drawn.reshape(2, 258) / np.float32(3e5)
    drawn[0, 256:] *= np.float32(1e-3)
    drawn[1, 256:] = 0
    given = [special, drawn, drawn[:1, :0]]
    few = few_bits_values()
    offered = [special[4:], drawn[:, :30]]
    received = [np.roll(each, 1, axis=1) for each in offered]
    bare = special[4:, :8]
    layout = layout_of([("weight", (2, 3)), ("bias", (2,))])
    terms = [
        Terms(
            run_name="bytes",
            seed=1,
            members=4,
            rounds=30,
            local_steps=24,
            exchange=exchange_config(dtype=dtype),
        )
        for dtype in DTYPES
    ]
    return {
        "values": [
            {
                "dtype": dtype,
                "values": hex32(each) if each.size else [[]],
                "bytes": encode_values(each, dtype).hex(),
                "decoded": hex32(rounded(each, dtype)) if each.size else [[]],
            }
            for dtype, each in [
                *((dtype, each) for dtype in DTYPES for each in given),
                *((dtype, each) for dtype in ("int4", "int3", "int2") for each in few),
            ]
        ],
        "taken_over": [
            {
                "dtype": dtype,
                "offered": hex32(mine),
                "received": hex32(rounded(got, dtype)),
                "new": hex32(taken_over(rounded(got, dtype), offered=mine, dtype=dtype)),
            }
            for dtype in DTYPES
            for got, mine in zip(received, offered, strict=True)
        ],
        "packets": [
            {
                "direction": Direction.OFFER.value,
                "run": run_identity(each).hex(),
                "layout": layout.fingerprint.hex(),
                "exchange": 9,
                "member": 2,
                "dtype": each.exchange.dtype,
                "values": hex32(bare),
                "packet": encode(
                    Slice(Direction.OFFER, run_identity(each), layout, 9, 2, bare, each.exchange.dtype)
                ).hex(),
            }
            for each in terms
        ],
        "runs": [{"terms": each.to_json(), "identity": run_identity(each).hex()} for each in terms],
    }


def few_bits_values():
    """Return values that need every candidate for a scale, and blocks at the limits of scales."""
    words = np.frombuffer(philox.words(2, "values", 300).tobytes(), "<i2").astype(np.float64)
    # Cubes: a few large values among small ones, of which each block clips as many as are worth it. They are
    # exact before they are rounded: the power of a float32 has another last bit on some processors.
    drawn = words[:840] / 2**15
    drawn = (drawn * drawn * drawn).astype(np.float32) * np.float32(0.01)
    small = np.zeros((1, 330), dtype=np.float32)
    # From block to block 7, 3 and 1 times about 2**-21, the smallest scale; the rest are halves of levels.
    for block, largest in enumerate([7.0, 6.99, 3.0, 2.99, 1.0]):
        small[0, 64 * block : 64 * block + 8] = np.arange(1, 9) * np.float32(largest * 2.0**-24)
    small[0, 320:] = np.float32(0.5) * np.arange(-5, 5)
    large = np.array(
        [[3.4028235e38, -458528.0, 458529.0, 196512.0, -65504.0, 1.0, -0.0, 1e-45]], dtype=np.float32
    )
    return [drawn.reshape(4, 210), small, large]


def averaging_vectors():
    """Return the mean that a member takes itself, which exchanges average, and terms that say so."""
    numbers = np.array([[127.0, 0.5, 1.5, 2.5, -0.5, -1.5, 63.5, 64.5, -126.5, 126.49, 0.0, -0.0, 1e-45]])
    drawn = np.frombuffer(philox.words(2, "values", 90).tobytes(), "<i2")[:90].astype(np.float32)
    offered = [numbers.astype(np.float32), drawn.reshape(2, 45) / np.float32(3e5)]
    received = [np.roll(each, 1, axis=1) for each in offered]
    averages = [
        {"mix": "average", "topology": "all"},
        {"mix": "average", "topology": "pairs"},
        {"mix": "shuffle", "topology": "pairs", "average_from": 0.75},
        {"mix": "shuffle", "topology": "permutation", "average_from": 0.5, "dtype": "int8"},
    ]
    terms = [
        Terms(
            run_name="mean", seed=1, members=4, rounds=30, local_steps=24, exchange=exchange_config(**options)
        )
        for options in averages
    ]
    return {
        "means": [
            {
                "dtype": dtype,
                "offered": hex32(mine),
                "received": hex32(rounded(got, dtype)),
                "new": hex32(taken_over(rounded(got, dtype), offered=mine, dtype=dtype, mean=True)),
            }
            for dtype in ("float32", "bfloat16", "float16", "int8")
            for got, mine in zip(received, offered, strict=True)
        ],
        "rules": [
            {
                "average_from": part,
                "stop_after": stop_after,
                "exchanges": exchanges,
                "rules": [rule_at(part, stop_after, exchanges, each) for each in range(1, exchanges + 2)],
            }
            for part, stop_after, exchanges in [
                (0.0, 0, 4),
                (0.75, 0, 4),
                (0.75, 0, 10),
                (0.01, 0, 5),
                (0.999, 0, 5),
                (0.29, 0, 100),
                (0.5, 6, 10),
            ]
        ],
        "runs": [{"terms": each.to_json(), "identity": run_identity(each).hex()} for each in terms],
    }


def rule_at(average_from, stop_after, exchanges, exchange):
    schedule = schedule_of({"average_from": average_from, "stop_after": stop_after}, exchanges, 1)
    return schedule.options_at(exchange).mix


def anchor_vectors():
    drawn = (philox.words(11, "anchor", 400) >> np.uint64(40)).astype(np.float32)
    values = drawn / np.float32(2**22) - np.float32(2)
    cases = [
        ("float32", 1.0, 0.0),
        ("int8", 1.0, 0.0),
        ("int4", 0.7, 0.5),
        ("int3", 0.7, 0.5),
        ("int2", 1.0, 0.25),
        ("bfloat16", 0.3, 0.0),
    ]
    runs = []
    for number, (dtype, rate, momentum) in enumerate(cases):
        options = exchange_config(
            mix="average",
            topology="all",
            dtype=dtype,
            reference="anchor",
            outer_learning_rate=rate,
            outer_momentum=momentum,
        )
        server = ServerAnchor(values[number : number + 7].reshape(1, 7).copy(), options)
        run = {
            "dtype": dtype,
            "rate": rate,
            "momentum": momentum,
            "anchor": hex32(server.values),
            "exchanges": [],
        }
        for exchange, coordinates in enumerate(([0, 2, 3], [1, 2, 6], [0, 2, 5]), start=1):
            places = np.array(coordinates)
            begin = 20 * number + 9 * exchange
            held = [values[begin + 3 * each :][:3].reshape(1, 3) for each in range(1 + exchange)]
            at = server.at(places)
            offers = [rounded(difference(each, at), dtype) for each in held]
            move = server.outcome(places, offers)
            server.apply(exchange, places, move)
            now = held[0] + np.float32(0.0625)
            new = taken_part(now, offered=held[0], anchor=at, delta=move.delta, dtype=dtype)
            run["exchanges"].append(
                {
                    "coordinates": coordinates,
                    "held": [hex32(each) for each in held],
                    "data": move.data.hex(),
                    "error": hex32(move.error),
                    "anchor": hex32(server.values),
                    "chain": hex64(server.chain),
                    "now": hex32(now),
                    "new": hex32(new),
                }
            )
        runs.append(run)
    joined = [
        Joined(0, 0),
        Joined(7, 2**64 - 1, [b"one", b"another"], 0),
        Joined(2**40, 5, [bytes(300)], 6),
    ]
    terms = Terms(
        run_name="anchor",
        seed=1,
        members=3,
        rounds=2,
        local_steps=1,
        exchange=exchange_config(
            mix="average", topology="all", reference="anchor", outer_learning_rate=0.7, outer_momentum=0.5
        ),
    )
    layout = layout_of([("weight", (2, 3)), ("bias", (2,))])
    differences = np.array([[0.5, -0.25, 1e-38, 7]], dtype=np.float32)
    offers = [(0, 1, 0, "float32"), (2**64 - 1, 2, 1, "float32"), (5, 2**40, 2, "int4")]
    return {
        "runs": runs,
        "offers": [
            {
                "direction": Direction.OFFER.value,
                "run": run_identity(terms).hex(),
                "layout": layout.fingerprint.hex(),
                "exchange": exchange,
                "member": member,
                "dtype": dtype,
                "values": hex32(differences),
                "chain": hex64(chain),
                "packet": encode(
                    Slice(
                        Direction.OFFER,
                        run_identity(terms),
                        layout,
                        exchange,
                        member,
                        differences,
                        dtype,
                        chain,
                    )
                ).hex(),
            }
            for chain, exchange, member, dtype in offers
        ],
        "deliveries": [
            {
                "after": each.after,
                "chain": hex64(each.chain),
                "packets": [packet.hex() for packet in each.packets],
                "whole": hex64(each.whole),
                "bytes": join(each).hex(),
            }
            for each in joined
        ],
        "terms": [{"terms": terms.to_json(), "identity": run_identity(terms).hex()}],
    }


def vectors():
    """Return the contents of every file by its name, as this version of wash_fl computes them."""
    groups = {
        "philox": philox_vectors(),
        "schedule": schedule_vectors(),
        "draw": draw_vectors(),
        "mix": mix_vectors(),
        "packet": packet_vectors(),
        "dtypes": dtype_vectors(),
        "averaging": averaging_vectors(),
        "run_lengths": run_length_vectors(),
        "anchor": anchor_vectors(),
    }
    return {name: {"about": ABOUT, **content} for name, content in groups.items()}


def written(content):
    """Return a file's text: JSON with one vector per line."""
    groups = [
        f'"{name}": '
        + (json.dumps(group) if name == "about" else "[\n" + ",\n".join(map(json.dumps, group)) + "\n]")
        for name, group in content.items()
    ]
    return "{\n" + ",\n".join(groups) + "\n}\n"


def main():
    for name, content in vectors().items():
        path = FOLDER / f"{name}.json"
        before = json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
        if before == content:
            continue
        path.write_text(written(content), encoding="utf-8")
        print(f"{path.name}: {'new' if before is None else 'CHANGED: deployed members would disagree'}")


if __name__ == "__main__":
    main()
