"""Amounts as a person reads them."""

from collections.abc import Mapping


def size(count: float) -> str:
    """Return bytes as three digits and a unit."""
    for unit in ("B", "kB", "MB"):
        if count < 999.5:  # from there on three digits would read 1e+03
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} GB"


def percent(share: float) -> str:
    """Return a share as a percentage with two decimals."""
    return f"{share:.2%}"


def on_links(traffic: Mapping[str, int], members: int) -> str:
    """Return what went over each device's link in a run, by direction; empty where there was no network.

    Parameters
    ----------
    traffic : mapping of str to int
        Bytes over all members, by direction and kind.
    members : int
        How many there are.
    """
    if "down_transport" not in traffic or not members:
        return ""

    def way(direction: str) -> str:
        kinds = {
            "app": traffic.get(f"{direction}_app", 0),
            "whole models": traffic.get(f"{direction}_models", 0),
            "other messages": traffic.get(f"{direction}_messages", 0),
            "their transport": traffic[f"{direction}_transport"] + traffic.get(f"{direction}_framing", 0),
        }
        parts = ", ".join(f"{name} {size(count / members)}" for name, count in kinds.items() if count)
        return f"{size(sum(kinds.values()) / members)} ({parts})"

    return f"on its link each device received about {way('down')} and sent {way('up')}"
