"""The bench of the dtypes compares what it says, from the same start; how well they do is its result."""

import json

import pytest
from typer.testing import CliRunner

from wash_fl.cli.main import app
from wash_fl.lab.bench import compression

FAST = compression.QUICK | {"rounds": 4, "members": 2, "train_examples": 100, "test_examples": 50, "p": 1.0}
NAMES = [
    *("float32", "bfloat16", "int8", "int4", "int3", "int2"),
    *("int8 without residual", "int4 without residual"),
]
UP = [1.0, 0.5, 0.2539, 0.1328, 0.1016, 0.0703, 0.2539, 0.1328]


@pytest.fixture(scope="module")
def figures():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compression, "QUICK", FAST)
        result = CliRunner().invoke(app, ["bench", "compression", "--quick", "--json"])
    assert result.exit_code == 0, result.output
    assert len(result.stderr.splitlines()) == 2 * len(NAMES)
    return json.loads(result.stdout)


@pytest.mark.parametrize("topology", ["pairs", "permutation"])
def test_every_variant_has_its_accuracies_and_the_bytes_of_its_dtype(figures, topology):
    by_variant = figures[topology]
    assert (figures["bench"], figures["seeds"], list(by_variant)) == ("compression", [0], NAMES)
    for each in by_variant.values():
        assert each["accuracies"] == [each["accuracy"]] and 0 <= each["accuracy"] <= 1
        below = 100 * (by_variant["float32"]["accuracy"] - each["accuracy"])
        assert each["points_below_float32"] == pytest.approx(below)
    ratios = [each["bytes_ratio"] for each in by_variant.values()]
    assert ratios == pytest.approx(UP, abs=1e-3)
    down = [each["bytes_ratio_down"] for each in by_variant.values()]
    # A permutation's deliveries have no common scale.
    assert down == ([1.0, 0.5, *[1.0] * 6] if topology == "permutation" else ratios)
    assert figures[f"verdict_{topology}"] == compression.verdict(by_variant)


@pytest.mark.parametrize(
    ("int8", "without", "texts"),
    [
        (0.1, 2.5, ("0.10 points worse than float32", "2.40 points worse than with it")),
        (-0.3, -0.5, ("0.30 points better than float32", "0.20 points better than with it")),
        (0.001, 0.001, ("as good as float32", "as good as with it")),
    ],
)
def test_the_verdict_says_it_also_where_the_residual_is_worth_nothing(int8, without, texts):
    bytes_ratios = {"bytes_ratio": 0.254, "bytes_ratio_down": 1.0}
    by_variant = {
        "int8": {"points_below_float32": int8, **bytes_ratios},
        "int8 without residual": {"points_below_float32": without, **bytes_ratios},
        "int4": {"points_below_float32": 0.5, "bytes_ratio": 0.133, "bytes_ratio_down": 1.0},
        "int4 without residual": {"points_below_float32": 9.5, **bytes_ratios},
    }
    assert compression.verdict(by_variant) == (
        f"int8 is {texts[0]}, at 0.254 of the bytes up and 1.000 down; without the residual it is {texts[1]}"
        ". int4 is 0.50 points worse than float32, at 0.133 of the bytes up and 1.000 down; without the "
        "residual it is 9.00 points worse than with it"
    )


def test_the_full_bench_has_three_seeds_and_exchanges_after_every_step():
    assert len(compression.SEEDS) == 3
    assert (compression.OPTIONS["task"], compression.OPTIONS["local_steps"]) == ("fashion-mnist", 1)
