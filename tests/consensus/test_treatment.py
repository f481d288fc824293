"""What was done with each buffer, in the summary and in one line."""

import pytest

from wash_fl.consensus.treatment import in_one_line, re_estimated

NORM = ["norm.running_mean", "norm.running_var"]


def test_what_was_estimated_anew_moves_and_what_is_empty_is_left_out() -> None:
    treatment = {"averaged": [*NORM, "ema"], "constant": ["mask"]}
    assert re_estimated(treatment, NORM) == {
        "averaged": ["ema"],
        "constant": ["mask"],
        "re-estimated": NORM,
    }
    assert re_estimated({"averaged": NORM}, NORM) == {"re-estimated": NORM}
    assert re_estimated({"constant": ["mask"]}, []) == {"constant": ["mask"]}


@pytest.mark.parametrize(
    ("treatment", "line"),
    [
        ({}, ""),
        ({"re-estimated": NORM, "from member 0": ["norm.num_batches_tracked"]}, ""),
        ({"re-estimated": NORM, "constant": ["mask"]}, "constant: mask"),
        (
            {"from member 2": ["a", "b", "c", "d", "e"], "recomputed": ["u", "v"]},
            "from member 2: a, b, c and 2 more; recomputed: u, v",
        ),
    ],
)
def test_the_line_is_of_all_but_batchnorm(treatment: dict[str, list[str]], line: str) -> None:
    assert in_one_line(treatment) == line
