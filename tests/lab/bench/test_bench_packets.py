"""The bench of packets: a sample without violation, and one for each way in which a decoder may be wrong."""

import json
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from typer.testing import CliRunner

from wash_fl.cli.main import app
from wash_fl.core.packet import PacketError, Refusal, Slice, decode, encode
from wash_fl.core.wire import exchange_pb2 as wire
from wash_fl.lab.bench import packets
from wash_fl.lab.search import mutation
from wash_fl.lab.search.mutation import MUTATIONS, Dice, fields, seal


@pytest.fixture(scope="module")
def figures():
    return packets.run(20_000)


def test_no_mutated_packet_is_taken_for_something_else(figures):
    assert figures["violations"] == 0, figures.get("first_violation")
    assert "first_violation" not in figures


def test_every_example_is_counted_once(figures):
    refused = sum(figures["refusals"].values())
    accepted = figures["accepted_unchanged"] + figures["accepted_rewritten"]
    assert refused + accepted == figures["examples"] == sum(figures["mutations"].values()) == 20_000
    assert figures["seconds"] > 0
    json.dumps(figures)


def test_every_mutation_happens_and_every_refusal_is_met(figures):
    assert sorted(figures["mutations"]) == sorted(MUTATIONS)
    assert min(figures["mutations"].values()) > 800
    assert list(figures["refusals"]) == [refusal.value for refusal in Refusal]
    assert min(figures["refusals"].values()) > 20, figures["refusals"]


def test_hardly_any_mutation_changes_nothing(figures):
    assert figures["accepted_unchanged"] < 0.01 * figures["examples"]


def test_the_same_seed_gives_the_same_examples_and_another_seed_others():
    def counts(seed):
        return {key: each for key, each in packets.run(2_000, seed).items() if key != "seconds"}

    assert counts(1) == counts(1) != counts(2)


def test_the_valid_packets_differ_in_everything_that_a_receiver_checks():
    cases = packets._cases(0)
    kinds = Counter()
    for case in cases:
        slice_ = decode(case.packet, **case.expected)
        kinds.update({("direction", slice_.direction), ("member", slice_.member), ("run", slice_.run)})
        kinds.update({("exchange", slice_.exchange), ("size", slice_.values.shape)})
        kinds.update({("dtype", slice_.dtype)})
        assert case.packet in case.valid
    for name, least in (
        ("direction", 2),
        ("member", 5),
        ("run", 2),
        ("exchange", 6),
        ("size", 8),
        ("dtype", 7),
    ):
        assert len([kind for kind in kinds if kind[0] == name]) >= least, name


def test_the_command_prints_the_figures_and_fails_on_a_violation(monkeypatch):
    result = CliRunner().invoke(app, ["bench", "packets", "--examples", "500", "--seed", "4", "--json"])
    content = json.loads(result.stdout)
    assert result.exit_code == 0
    assert (content["bench"], content["examples"], content["violations"]) == ("packets", 500, 0)
    monkeypatch.setattr(packets, "decode", ignores_the_checksum)
    result = CliRunner().invoke(app, ["bench", "packets", "--examples", "5000", "--json"])
    assert result.exit_code == 1 and json.loads(result.stdout)["violations"] > 0


# A decoder that is wrong is found


def ignores_the_checksum(packet, **expected):
    message = wire.Slice.FromString(packet)
    return decode(seal(message), **expected)


def ignores_the_member(packet, *, member, **expected):
    try:
        message = wire.Slice.FromString(packet)
    except Exception:
        return decode(packet, member=member, **expected)
    return replace(decode(packet, member=message.member, **expected), member=member)


def takes_what_is_added(packet, **expected):
    for end in range(len(packet), max(0, len(packet) - 20), -1):
        try:
            return decode(packet[:end], **expected)
        except PacketError as error:
            last_error = error
    raise last_error


def lets_numbers_be_strange(packet, **expected):
    try:
        return decode(packet, **expected)
    except PacketError as error:
        if error.refusal is Refusal.NON_FINITE:
            shape = (len(expected["layout"].slots), expected["count"](1))
            values = np.zeros(shape, np.float32)
            return Slice(expected["direction"], expected["run"], expected["layout"], 1, 0, values)
        raise


def fails_in_another_way(packet, **expected):
    try:
        return decode(packet, **expected)
    except PacketError as error:
        if error.refusal is Refusal.LENGTH:
            raise IndexError("values") from error
        raise


@pytest.mark.parametrize(
    "broken",
    [
        ignores_the_checksum,
        ignores_the_member,
        takes_what_is_added,
        lets_numbers_be_strange,
        fails_in_another_way,
    ],
)
def test_a_decoder_is_found_that(monkeypatch, broken):
    monkeypatch.setattr(packets, "decode", broken)
    figures = packets.run(5_000)
    assert figures["violations"] > 0
    assert " became " in figures["first_violation"]


# The mutations


def test_a_packet_is_cut_into_its_fields_and_no_byte_is_lost():
    for case in packets._cases(3):
        parts = fields(case.packet)
        assert b"".join(parts) == case.packet
        assert [part[0] >> 3 for part in parts] == sorted({part[0] >> 3 for part in parts})


def test_what_is_resealed_has_the_checksum_of_the_protocol():
    for case in packets._cases(4):
        message = wire.Slice.FromString(case.packet)
        message.checksum = 0
        assert seal(message) == case.packet


@pytest.mark.parametrize("name", MUTATIONS)
def test_each_mutation_gives_bytes_that_differ_nearly_always(name):
    dice, cases = Dice(1, "mutate"), packets._cases(5)
    changed = 0
    for number in range(300):
        case, other = cases[number % len(cases)], cases[(7 * number + 1) % len(cases)]
        mutated = MUTATIONS[name](case.packet, other.packet, dice)
        assert isinstance(mutated, bytes)
        changed += mutated != case.packet
    assert changed > 240


def test_dice_are_fair_and_repeat_by_seed():
    one, again, other = (Dice(seed, "dice") for seed in (1, 1, 2))
    rolls = [one.below(6) for _ in range(6000)]
    assert rolls == [again.below(6) for _ in range(6000)] != [other.below(6) for _ in range(6000)]
    counts = Counter(rolls)
    assert sorted(counts) == list(range(6)) and min(counts.values()) > 900
    assert {mutation.Dice(3, "x").below(1) for _ in range(10)} == {0}


def test_encode_and_decode_in_the_bench_are_those_of_the_protocol():
    assert packets.decode is decode and packets.encode is encode
