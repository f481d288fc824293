"""Slices early or late in the run: exchanged there only, and as many bytes as over all of it."""

import pytest

from wash_fl.lab.compare.methods import METHODS
from wash_fl.lab.compare.post import Post

OPTIONS = {"members": 3, "rounds": 8, "local-steps": 3, "batch-size": 8}


def trained(name, make_task, **options):
    config, knobs = METHODS[name].settings({**OPTIONS, **options})
    post = Post(config)
    cohort = METHODS[name].make(config, make_task(width=200), 0.0, post, knobs)
    rounds = []
    for number in range(1, 9):
        before = cohort.escrow.settled
        cohort.round(number)
        if cohort.escrow.settled > before:
            rounds.append(number)
    cohort.settle()
    post.finish()
    return cohort, rounds, post.per_member(3)


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("early", {}, [1, 2, 3, 4]),
        ("late", {}, [5, 6, 7, 8]),
        ("early", {"part": 0.25}, [1, 2]),
        ("late", {"part": 0.25}, [7, 8]),
        # The slices of 0.75 of all values do not fit into half of the exchanges.
        ("late", {"p": 0.75}, [3, 4, 5, 6, 7, 8]),
    ],
)
def test_slices_are_exchanged_in_their_part_of_the_run_for_the_same_bytes(make_task, name, options, expected):
    cohort, rounds, sent = trained(name, make_task, **options)
    assert rounds == expected
    _, all_rounds, steady = trained("wash", make_task, p=options.get("p", 0.1))
    assert all_rounds == list(range(1, 9))
    for way in ("up_values", "down_values"):
        assert sent[way] == pytest.approx(steady[way], rel=0.02)
    where = "first" if name == "early" else "last"
    assert cohort.knob.startswith(f"in the {where} {100 * len(expected) / 8:g} % of the run, p ")


def test_on_the_stream_plane_the_steps_count(make_task):
    cohort, rounds, _ = trained("late", make_task, **{"exchange-plane": "stream", "every": 1})
    assert rounds == [5, 6, 7, 8] and cohort.escrow.settled == 12
