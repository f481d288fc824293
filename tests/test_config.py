"""Options: one list of them, whichever way they are read, and every wrong one refused in one line."""

import codecs
import dataclasses
import json
import math
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wash_fl.config import GROUPS, ExchangeConfig, RunConfig, fields
from wash_fl.core.recipes import resolve
from wash_fl.errors import ConfigError
from wash_fl.option import LARGEST_INTEGER

PYPROJECT = Path(__file__).parents[1] / "pyproject.toml"
OPTIONS = sorted(fields())
ANCHORED_ONLY = ("outer-learning-rate", "outer-momentum")
CHOICES = sorted(key for key, spec in fields().items() if spec.metadata["choices"])
NUMBERS = sorted(
    key for key, spec in fields().items() if type(spec.default) in (int, float) and key not in CHOICES
)
NAMES = ("", "one", "a b", "-x", "ü 猫", 'a "b" \\ é 😀', "x" * 255, "...")


def limits(key: str) -> dict[str, Any]:
    return dict(fields()[key].metadata)


def allowed_values(key: str) -> st.SearchStrategy[Any]:
    spec = fields()[key]
    kind, bounds = type(spec.default), limits(key)
    if kind is bool:
        return st.booleans()
    if bounds["choices"]:
        return st.sampled_from(bounds["choices"])
    if kind is str:
        return (
            st.sampled_from(NAMES) if key == "run-name" else st.text(st.characters(exclude_characters="\0"))
        )
    low, high = max(bounds["low"], bounds["above"]), min(bounds["high"], 2.0**40)
    if kind is int:
        return st.integers(math.floor(low) if math.isfinite(low) else -(2**40), int(high))
    high = min(high, bounds["below"])
    return st.floats(low, high, exclude_min=bounds["above"] == low, exclude_max=bounds["below"] == high)


@st.composite
def configs(draw: st.DrawFn) -> RunConfig:
    values = {key: draw(allowed_values(key)) for key in draw(st.sets(st.sampled_from(OPTIONS)))}
    defaults = RunConfig().to_mapping()
    for lower, upper in (("min-members", "members"), ("learning-rate-end", "learning-rate")):
        if lower in values or upper in values:
            pair = [values.get(each, defaults[each]) for each in (lower, upper)]
            if upper == "members":
                pair = [min(each, int(limits("members")["high"])) for each in pair]
            values[lower], values[upper] = sorted(pair)
            if not values[upper] > 0 or (upper == "members" and values[upper] < 2):
                values[upper] = defaults[upper]
    values = mixable(values)
    if values.get("exchange-plane", "round") == "round":
        values.pop("every", None)
        values.pop("overlap", None)
    else:
        values["every"] = 1 + values.get("every", 1) % values.get("local-steps", defaults["local-steps"])
    return RunConfig.from_mapping(values)


def mixable(values: dict[str, Any]) -> dict[str, Any]:
    """Return options, without those that do not go together."""
    if values.get("mix", "auto") == "average":
        values.pop("average-from", None)
    elif values.get("mix") == "shuffle" or values.get("average-from"):
        values["topology"] = values.get("topology", "auto").replace("all", "auto")
    if values.get("mix") == "average" and values.get("topology") == "permutation":
        del values["topology"]
    if values.get("reference") == "anchor":
        values |= {"mix": "average", "topology": "all"}
        values.pop("average-from", None)
    else:
        for option in ANCHORED_ONLY:
            values.pop(option, None)
    if values.get("robust", "none") != "none":
        values |= {"mix": "average", "topology": "all", "members": max(5, values.get("members", 5))}
        values.pop("average-from", None)
    return values


@pytest.mark.parametrize("option", [{"every": 2}, {"overlap": True}])
def test_what_only_the_stream_plane_has_is_refused_on_the_round_plane(option):
    with pytest.raises(ConfigError, match="add exchange-plane = stream"):
        RunConfig.from_mapping({**option, "exchange-plane": "round"})
    with pytest.raises(ConfigError, match="add exchange-plane = stream"):
        RunConfig.from_mapping({**option, "recipe": "none"})
    assert RunConfig.from_mapping({**option, "exchange-plane": "stream"}).exchange.exchange_plane == "stream"
    assert "exchange-plane" in RunConfig.from_mapping(option).open  # so a recipe may still bring streams


@pytest.mark.parametrize(
    "other",
    [
        {"mix": "shuffle"},
        {"topology": "pairs"},
        {"topology": "permutation"},
        {"average-from": 0.5},
        {"mix": "average", "topology": "pairs"},
    ],
    ids=str,
)
def test_only_averages_over_all_have_an_anchor(other, refused):
    with refused(ConfigError, "reference = anchor needs averages over all"):
        RunConfig.from_mapping({"reference": "anchor", **other})
    RunConfig.from_mapping({"reference": "anchor", "mix": "average", "topology": "all"})
    assert RunConfig.from_mapping({"reference": "anchor"}).exchange.anchored


@pytest.mark.parametrize("other", [{"mix": "shuffle"}, {"topology": "pairs"}, {"average-from": 0.5}], ids=str)
def test_only_averages_over_all_of_five_or_more_are_robust(other, refused):
    with refused(ConfigError, "robust = median is of averages over all"):
        RunConfig.from_mapping({"robust": "median", "members": 5, **other})
    with refused(ConfigError, "robust = median needs five members or more, and members = 4"):
        RunConfig.from_mapping({"robust": "median", "members": 4})
    config = RunConfig.from_mapping({"robust": "median", "members": 5})
    for divided in (False, True):
        exchange = resolve(config, divided=divided).exchange
        assert (exchange.recipe, exchange.robust, exchange.topology) == ("frugal", "median", "all")
    with refused(ConfigError, "robust = median", "Here recipe = wash"):
        resolve(RunConfig.from_mapping({"robust": "median", "members": 5, "recipe": "wash"}), divided=False)


@pytest.mark.parametrize("option", [{"outer-learning-rate": 0.7}, {"outer-momentum": 0.5}])
def test_an_outer_step_without_an_anchor_is_refused(option, refused):
    (name,) = option
    with refused(ConfigError, f"{name} = 0.", "add reference = anchor"):
        RunConfig.from_mapping({**option, "reference": "values"})
    assert RunConfig.from_mapping(option).exchange.anchored


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        (
            {"mix": "average", "topology": "permutation"},
            ["topology = permutation", "mix = average", "use topology = pairs or all, or mix = shuffle"],
        ),
        (
            {"mix": "shuffle", "topology": "all"},
            ["topology = all", "mix = shuffle", "use topology = pairs or permutation, or mix = average"],
        ),
        (
            {"mix": "average", "average-from": 0.75},
            ["average-from = 0.75", "mix = average", "leave average-from out, or use mix = shuffle"],
        ),
        ({"topology": "all", "average-from": 0.5}, ["topology = all", "average-from = 0.5"]),
        ({"average-from": 1.0, "mix": "shuffle"}, ["average-from = 1.0", "at least 0 and below 1"]),
    ],
    ids=str,
)
def test_a_mix_refuses_what_only_another_mix_has(refused, options, parts):
    with refused(ConfigError, *parts):
        RunConfig.from_mapping(options)


def test_an_interval_longer_than_the_run_is_refused():
    with pytest.raises(ConfigError, match="nothing would be exchanged; lower every"):
        RunConfig.from_mapping({"exchange-plane": "stream", "rounds": 2, "local-steps": 3, "every": 7})


# One list of options


def test_the_flower_app_lists_every_option_in_order_with_its_default_and_type():
    app = tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))["tool"]["flwr"]["app"]["config"]
    defaults = RunConfig.from_mapping({}).to_mapping()
    assert list(app) == list(defaults)
    assert app == defaults
    assert {key: type(value) for key, value in app.items()} == {
        key: type(value) for key, value in defaults.items()
    }


def test_no_two_groups_have_an_option_of_the_same_name():
    assert len(fields()) == sum(len(dataclasses.fields(group)) for group in GROUPS.values())


@pytest.mark.parametrize("key", OPTIONS)
def test_every_option_has_a_line_of_help(key):
    text = limits(key)["help"]
    assert len(text) > 5 and "\n" not in text and text == text.strip() and not text.endswith(".")


@given(configs())
def test_options_survive_a_round_trip_through_a_mapping(config):
    options = config.to_mapping()
    assert list(options) == list(fields())
    assert RunConfig.from_mapping(options) == config
    # As they travel to Flower's processes and into the run's folder.
    assert RunConfig.from_mapping(json.loads(json.dumps(options))) == config


def test_options_are_read_with_hyphens_or_underscores():
    assert RunConfig.from_mapping({"local_steps": 7}) == RunConfig.from_mapping({"local-steps": 7})
    assert RunConfig.from_mapping({"local_steps": 7}).training.local_steps == 7


def test_a_whole_number_is_a_float_where_a_float_is_wanted():
    config = RunConfig.from_mapping({"alpha": 2, "p": 1})
    assert (config.task.alpha, config.exchange.p) == (2.0, 1.0)
    assert type(config.task.alpha) is float and type(config.exchange.p) is float


# TOML


FLAT = 'task = "fashion-mnist"\nmembers = 6\np = 0.25\nexchange-optimizer = true\nbatchnorm = "server"\n'
TABLES = """
[task]
task = "fashion-mnist"
[training]
members = 6
[exchange]
p = 0.25
exchange-optimizer = true
[finish]
batchnorm = "server"
"""
READ_OPTIONS = {
    "task": "fashion-mnist",
    "members": 6,
    "p": 0.25,
    "exchange-optimizer": True,
    "batchnorm": "server",
}


def write(folder: Path, content: str | bytes) -> Path:
    path = folder / "run.toml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize("content", [FLAT, TABLES], ids=["flat", "in tables"])
def test_a_toml_file_is_read_flat_or_in_tables(tmp_path, content):
    assert RunConfig.from_toml(write(tmp_path, content)) == RunConfig.from_mapping(READ_OPTIONS)


@pytest.mark.parametrize("content", [FLAT, TABLES], ids=["flat", "in tables"])
@pytest.mark.parametrize("key", ["exchange-optimizer", "exchange_optimizer"])
def test_an_override_wins_over_the_file(tmp_path, content, key):
    config = RunConfig.from_toml(write(tmp_path, content), {key: False, "p": 0.5})
    assert config == RunConfig.from_mapping(READ_OPTIONS | {"exchange-optimizer": False, "p": 0.5})


def test_a_config_file_that_is_missing_or_a_folder_is_refused(tmp_path, refused):
    with refused(ConfigError, "cannot read", "no.toml", "No such file"):
        RunConfig.from_toml(tmp_path / "no.toml")
    with refused(ConfigError, "cannot read", str(tmp_path), "Is a directory"):
        RunConfig.from_toml(tmp_path)


@pytest.mark.parametrize(
    "content",
    [b"p = ", b"p 0.5", b"p = 0.1\np = 0.2", b"\xff\x00p", b"p = 1\0", b"members = " + b"9" * 5000],
    ids=["no value", "no equals sign", "twice", "no text", "a NUL", "5000 digits"],
)
def test_a_file_that_is_no_toml_is_refused_by_name(tmp_path, refused, content):
    with refused(ConfigError, "run.toml is not valid TOML"):
        RunConfig.from_toml(write(tmp_path, content))


@pytest.mark.parametrize("content", [FLAT, TABLES], ids=["flat", "in tables"])
@pytest.mark.parametrize("ends", ["\n", "\r\n"])
def test_a_toml_file_of_an_editor_on_windows_is_read(tmp_path, content, ends):
    path = tmp_path / "run.toml"
    path.write_bytes(codecs.BOM_UTF8 + content.replace("\n", ends).encode())
    assert RunConfig.from_toml(path) == RunConfig.from_mapping(READ_OPTIONS)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "latin-1"])
def test_a_file_that_is_text_but_not_utf_8_says_what_to_save_it_as(tmp_path, refused, encoding):
    path = tmp_path / "run.toml"
    bom = {"utf-16-le": codecs.BOM_UTF16_LE, "utf-16-be": codecs.BOM_UTF16_BE}.get(encoding, b"")
    path.write_bytes(bom + 'run-name = "é"\n'.encode(encoding))
    with refused(ConfigError, str(path), "save it as UTF-8"):
        RunConfig.from_toml(path)


def test_a_value_under_the_name_of_a_table_is_refused(tmp_path, refused):
    with refused(ConfigError, "run.toml", "exchange", "write [exchange] above"):
        RunConfig.from_toml(write(tmp_path, "exchange = 3"))
    assert RunConfig.from_toml(write(tmp_path, 'task = "digits"')) == RunConfig.from_mapping({})


def test_an_unknown_key_of_a_file_is_refused_in_a_table_too(tmp_path, refused):
    for content in ("local-stepz = 3\n", "[training]\nlocal-stepz = 3\n"):
        with refused(ConfigError, "'local-stepz'", "Did you mean local-steps?"):
            RunConfig.from_toml(write(tmp_path, content))
    with refused(ConfigError, "'trainning'"):
        RunConfig.from_toml(write(tmp_path, "[trainning]\nlocal-steps = 3\n"))


# What is refused


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        ({"zzz": 1}, ["'zzz'", "Known options: task, model,", "round-timeout"]),
        ({"local-step": 3}, ["'local-step'", "Did you mean local-steps?"]),
        ({"Members": 3}, ["'Members'", "Did you mean members?"]),
        ({"members": True}, ["members = True is a bool", "must be an int, like "]),
        ({"members": 3.0}, ["members = 3.0 is a float", "must be an int, like "]),
        ({"members": "3"}, ["members = '3' is a str", "must be an int, like "]),
        ({"p": "0.1"}, ["p = '0.1' is a str", "must be a float, like 0."]),
        ({"p": True}, ["p = True is a bool", "must be a float, like 0."]),
        ({"p": None}, ["p = None", "must be a float, like 0."]),
        ({"p": [0.1]}, ["p = [0.1] is a list", "must be a float, like 0."]),
        ({"task": 3}, ["task = 3 is an int", "must be a str, like '"]),
        ({"exchange-optimizer": 1}, ["exchange-optimizer = 1 is an int", "must be a bool, like False"]),
        ({"p": 1.5}, ["p = 1.5", "at least 0 and at most 1", "try 0."]),
        ({"p": math.nan}, ["p = nan", "at least 0 and at most 1"]),
        ({"members": 1}, ["members = 1", "at least 2", "nobody to exchange with"]),
        ({"alpha": 0.0}, ["alpha = 0.0", "above 0", "Try "]),
        ({"alpha": math.inf}, ["alpha = inf", "above 0"]),
        ({"seed": -1}, ["seed = -1", "at least 0"]),
        ({"seed": 2**63}, ["seed = 9223372036854775808", "at most 9223372036854775807"]),
        ({"members": 10**400}, ["members = 1000", "at most 9223372036854775807"]),
        ({"p": -(10**400)}, ["p = -1000", "at most 9223372036854775807"]),
        ({"mix": "shufle"}, ["mix = 'shufle'", "shuffle, average", "Did you mean shuffle?"]),
        ({"schedule": ""}, ["schedule = ''", "decreasing, constant, increasing, size-aware"]),
        (
            {"members": 4, "min-members": 5},
            ["min-members = 5", "members = 4", "lower min-members or raise members"],
        ),
        (
            {"learning-rate": 1e-5, "learning-rate-end": 1e-4},
            ["learning-rate-end = 0.0001", "learning-rate = 1e-05", "falls over the run; lower it"],
        ),
    ],
    ids=lambda case: str(case)[:24] if isinstance(case, dict) else "",
)
def test_a_wrong_option_is_refused_with_what_was_given_what_is_allowed_and_what_to_do(
    refused, options, parts
):
    with refused(ConfigError, *parts):
        RunConfig.from_mapping(options)


@pytest.mark.parametrize("key", OPTIONS)
def test_every_option_refuses_every_other_type(key, refused):
    kind = type(fields()[key].default)
    samples: list[Any] = [True, 1, 0.5, "text", None, [], {}, b"", 1j]
    for value in samples:
        if type(value) is kind or (kind is float and type(value) is int):
            continue
        with refused(ConfigError, f"{key} = {value!r}", f"must be a{'n' if kind is int else ''} "):
            RunConfig.from_mapping({key: value})


@pytest.mark.parametrize("key", NUMBERS)
def test_every_number_is_refused_just_outside_its_limits_and_taken_at_them(key, refused):
    bounds, kind = limits(key), type(fields()[key].default)
    step = 1 if kind is int else 0.001
    extremes = []
    if math.isfinite(bounds["low"]):
        extremes.append((kind(bounds["low"]), kind(bounds["low"] - step), f"at least {bounds['low']}"))
    if math.isfinite(bounds["high"]):
        extremes.append((kind(bounds["high"]), kind(bounds["high"] + step), f"at most {bounds['high']}"))
    if math.isfinite(bounds["above"]):
        extremes.append((kind(bounds["above"] + step), kind(bounds["above"]), f"above {bounds['above']}"))
    if math.isfinite(bounds["below"]):
        extremes.append((kind(bounds["below"] - step), kind(bounds["below"]), f"below {bounds['below']}"))
    assert extremes, "a number without limits"
    others = {"learning-rate-end": 0.0} if key == "learning-rate" else {}
    others |= {"reference": "anchor"} if key in ANCHORED_ONLY else {}
    for inside, outside, part in extremes:
        assert RunConfig.from_mapping({key: inside} | others).to_mapping()[key] == inside
        with refused(ConfigError, part):
            RunConfig.from_mapping({key: outside})
    for nothing in (math.nan, math.inf, -math.inf) if kind is float else ():
        with refused(ConfigError, f"{key} = {nothing!r}"):
            RunConfig.from_mapping({key: nothing})


@pytest.mark.parametrize("key", CHOICES)
def test_every_choice_is_taken_and_nothing_else(key, refused):
    choices = limits(key)["choices"]
    for choice in choices:
        assert RunConfig.from_mapping({"members": 5, key: choice}).to_mapping()[key] == choice
    numbers = type(choices[0]) is int
    for other in (-1, 2, 65) if numbers else ("no-such-choice", choices[0].upper(), f"{choices[0]} "):
        with refused(ConfigError, repr(other), ", ".join(map(str, choices))):
            RunConfig.from_mapping({key: other})


@pytest.mark.parametrize("name", ["a/b", "/etc", "../x", ".", "..", "a/", "./a"])
def test_a_runs_name_with_slashes_is_refused(refused, name):
    with refused(ConfigError, f"run-name = {name!r}", "without slashes"):
        RunConfig.from_mapping({"run-name": name})


@pytest.mark.parametrize("name", [" ", "\t", "a\nb", "a\rb", "\x1b[31m", "\u200b", "a\u2028b"])
def test_a_runs_name_that_cannot_be_seen_is_refused(refused, name):
    with refused(ConfigError, f"run-name = {name!r}", "that can be seen"):
        RunConfig.from_mapping({"run-name": name})


def test_a_runs_name_is_refused_just_above_the_longest_that_a_folder_can_have(refused):
    for letter, count in (("x", 255), ("é", 127)):
        assert RunConfig.from_mapping({"run-name": letter * count})
        with refused(ConfigError, letter * 10, "at most 255 bytes"):
            RunConfig.from_mapping({"run-name": letter * (count + 1)})


@pytest.mark.parametrize("key", ["task", "model", "run-dir", "run-name", "state-dir"])
@pytest.mark.parametrize(("text", "why"), [("a\0b", "NUL"), ("\udcff", "UTF-8"), ("\ud800", "UTF-8")])
def test_a_text_that_no_file_can_hold_is_refused(refused, key, text, why):
    with refused(ConfigError, f"{key} = {text!r}", why):
        RunConfig.from_mapping({key: text})


def test_limits_hold_for_a_config_made_without_a_mapping(refused):
    with refused(ConfigError, "p = 2.0"):
        RunConfig(exchange=ExchangeConfig(p=2.0))


def test_a_config_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        RunConfig().exchange.p = 0.5  # type: ignore[misc]


def test_the_largest_integer_is_the_largest_seed():
    assert RunConfig.from_mapping({"seed": LARGEST_INTEGER}).training.seed == 2**63 - 1


def test_a_group_made_by_hand_is_checked_like_one_from_a_file(refused):
    with refused(ConfigError, "p = 2.0", "at most 1"):
        ExchangeConfig(p=2.0)
    assert type(ExchangeConfig(p=1).p) is float


def test_an_option_given_flat_and_in_a_table_is_refused(tmp_path, refused):
    path = tmp_path / "options.toml"
    path.write_text("p = 0.1\n[exchange]\np = 0.2\n")
    with refused(ConfigError, "gives p twice"):
        RunConfig.from_toml(path)
