"""Lists of numbers as they are typed: with commas between."""

from typing import Any

from wash_fl.errors import ConfigError


def numbers(text: str, name: str, kind: type = float, *, example: str) -> tuple[Any, ...]:
    """Return the numbers of a text with commas between.

    Parameters
    ----------
    text : str
        What was typed.
    name : str
        The option.
    kind : type
        ``int`` for whole numbers, or ``float``.
    example : str
        What could be typed.

    Raises
    ------
    ConfigError
        If one is none.
    """
    try:
        return tuple(kind(each) for each in text.split(","))
    except ValueError:
        what = "whole numbers" if kind is int else "numbers"
        raise ConfigError(
            f"{name} = {text!r}: write {what} with commas between, such as {example}."
        ) from None
