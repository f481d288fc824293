"""Why members are missing, for people: what several have in common is said once."""

from collections.abc import Mapping

MOST = 5
"""Reasons that are said in one message; a large fleet's log has the rest."""


def by_reason(reasons: Mapping[int, str]) -> dict[str, list[int]]:
    """Return who has which reason, in order, the reasons without their full stop."""
    groups: dict[str, list[int]] = {}
    for who, reason in sorted(reasons.items()):
        groups.setdefault(reason.rstrip("."), []).append(who)
    return groups


def in_words(reasons: Mapping[int, str], kind: str = "member") -> list[str]:
    """Return one text for each reason, such as ``members 0, 1: ValueError: ...``."""
    groups = by_reason(reasons)
    texts = [
        f"{kind}{'s' if len(who) > 1 else ''} {', '.join(map(str, who))}: {reason}"
        for reason, who in list(groups.items())[:MOST]
    ]
    return [*texts, f"{len(groups) - MOST} more reasons"] if len(groups) > MOST else texts
