"""The names of the classes: the server announces them, and a device whose own are others is refused."""

import json
from collections.abc import Collection, Sequence
from itertools import zip_longest

from wash_fl.core.names import refusal_of_names
from wash_fl.errors import ConfigError, ExchangeError


def checked_classes(classes: Collection[str]) -> tuple[str, ...]:
    """Return class names as a tuple, in the order of a model's outputs.

    Raises
    ------
    ConfigError
        If they have no order, or are no names.
    """
    if isinstance(classes, str) or not isinstance(classes, Sequence):
        raise ConfigError(
            f"classes is a {type(classes).__name__}, which has no fixed order of names: use a list or a "
            "tuple, in the order of the model's outputs."
        )
    if wrong := refusal_of_names(classes):
        raise ConfigError(
            "classes must be different names that people can read, in the order of the model's outputs: "
            f"{wrong}."
        )
    return tuple(map(str, classes))


def refuse_other_classes(announced: Sequence[str], own: Sequence[str]) -> None:
    """Refuse a device's classes that are not the server's; where one side names none, nothing is checked.

    Raises
    ------
    ConfigError
        If they differ; it shows the first difference.
    """
    if not announced or not own or list(announced) == list(own):
        return
    place, (theirs, ours) = next(
        (place, pair) for place, pair in enumerate(zip_longest(announced, own)) if pair[0] != pair[1]
    )
    raise ConfigError(
        f"this client's classes are not the server's: class {place} is {_shown(ours)} here and "
        f"{_shown(theirs)} there ({len(own)} here, {len(announced)} there). Name them in one fixed order on "
        "all machines, not by what each has."
    )


def classes_to_json(classes: Sequence[str]) -> str:
    """Return class names as JSON, for the request to join."""
    return json.dumps(list(classes))


def classes_from_json(text: str) -> tuple[str, ...]:
    """Read class names from the wire; an empty text is none.

    Raises
    ------
    ExchangeError
        If they are no list of names.
    """
    try:
        names = json.loads(text) if text else []
    except (ValueError, RecursionError):
        names = None
    if not isinstance(names, list) or not all(isinstance(each, str) for each in names):
        raise ExchangeError("the server's classes cannot be read: update the older side.")
    return tuple(names)


def _shown(name: str | None) -> str:
    return "missing" if name is None else repr(name[:60])
