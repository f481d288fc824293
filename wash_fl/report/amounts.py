"""Amounts as a person reads them."""


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
