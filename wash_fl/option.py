"""One option: how it is declared, and what is said of a value that it cannot have."""

import dataclasses
import difflib
import math
from typing import Any

from wash_fl.errors import ConfigError

Value = bool | int | float | str

LARGEST_INTEGER = 2**63 - 1
"""What Flower's run config can carry, and TOML promises to."""


def option(
    default: Value,
    text: str,
    *,
    choices: tuple[str, ...] = (),
    low: float = -math.inf,
    high: float = math.inf,
    above: float = -math.inf,
    below: float = math.inf,
    hint: str = "",
) -> Any:
    """Declare one option: its default, one line of help, and what is allowed."""
    bounds = {"low": low, "high": high, "above": above, "below": below}
    return dataclasses.field(
        default=default, metadata={"help": text, "choices": choices, **bounds, "hint": hint}
    )


def _typed(key: str, value: Any, spec: dataclasses.Field[Any]) -> Value:
    kind = type(spec.default)
    if type(value) is int and abs(value) > LARGEST_INTEGER:
        raise ConfigError(f"{key} = {value} is not allowed: it must be at most {LARGEST_INTEGER} in size.")
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is not kind:
        raise ConfigError(
            f"{key} = {value!r} is {_a(type(value).__name__)}; it must be {_a(kind.__name__)}, "
            f"like {spec.default!r}."
        )
    if isinstance(value, str):
        _check_text(key, value)
    return kind(value)  # type: ignore[no-any-return]


def _check_text(key: str, text: str) -> None:
    """Refuse what no file can hold: it would be found out by another process, after the run has begun."""
    if "\0" in text:
        raise ConfigError(f"{key} = {text!r} is not allowed: no path has a NUL in it; leave it out.")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ConfigError(
            f"{key} = {text!r} is not allowed: it is no UTF-8 text; if it was typed in a terminal, set "
            "LC_ALL=C.UTF-8 or PYTHONUTF8=1."
        ) from None


def _a(noun: str) -> str:
    return f"an {noun}" if noun[0] in "aeiou" else f"a {noun}"


def _check(key: str, value: Value, spec: dataclasses.Field[Any]) -> None:
    limits = spec.metadata
    hint = f" {limits['hint']}" if limits["hint"] else ""
    if limits["choices"] and value not in limits["choices"]:
        near = difflib.get_close_matches(str(value), limits["choices"], n=1)
        raise ConfigError(
            f"{key} = {value!r} is not allowed: it is one of {', '.join(limits['choices'])}."
            + (f" Did you mean {near[0]}?" if near else "")
        )
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        low, high, above, below = (limits[bound] for bound in ("low", "high", "above", "below"))
        if not (math.isfinite(value) and low <= value <= high and above < value < below):
            bounds = [
                f"above {above}" if above > -math.inf else "",
                f"at least {low}" if low > -math.inf else "",
                f"at most {high}" if high < math.inf else "",
                f"below {below}" if below < math.inf else "",
            ]
            allowed = " and ".join(filter(None, bounds)) or "a finite number"
            raise ConfigError(f"{key} = {value!r} is not allowed: it must be {allowed}.{hint}")


class Checked:
    """A group of options that refuses impossible values however it is made."""

    def __post_init__(self) -> None:
        for spec in dataclasses.fields(self):  # type: ignore[arg-type]
            key = spec.name.replace("_", "-")
            value = _typed(key, getattr(self, spec.name), spec)
            _check(key, value, spec)
            object.__setattr__(self, spec.name, value)
