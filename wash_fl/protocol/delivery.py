"""What a delivery makes of a member: one rule, for rounds and for streams."""

from wash_fl.core.codec import taken_over
from wash_fl.core.dtypes import FLOAT32
from wash_fl.errors import ExchangeError, NotJoinedError
from wash_fl.protocol.journal_rows import Delivery, Values


def values_after(
    delivery: Delivery,
    *,
    member: int,
    applied: int,
    offered: int,
    offer: Values | None,
    dtype: str,
    now: Values | None = None,
    mean: bool = False,
) -> Values | None:
    """Return the values that a member holds after a delivery; None if it was applied before.

    Parameters
    ----------
    delivery : Delivery
    member : int
        The member's index.
    applied, offered : int
        The last exchange whose delivery the member applied, and the last one that it offered for.
    offer : ndarray of float32, shape (slots, count), or None
        What it held at the coordinates of ``offered`` when it made that offer.
    dtype : str
        In which values travel: what an offer leaves out of them stays with the member.
    now : ndarray of float32, shape (slots, count), or None
        What it holds there now, if it has trained on meanwhile.
    mean : bool
        Whether what was delivered is what its partner offered, and it takes the mean of the two itself.

    Raises
    ------
    NotJoinedError
        If the delivery is of an exchange after the last offer that the member knows of. A power cut has
        taken its record of that offer, and deliveries before this one may be lost with it.
    ExchangeError
        If it is of an exchange before the last offer, and what that exchange left out, or what the member
        offered in it and is to take the mean of, is not known any more.
    """
    if delivery.exchange <= applied:
        return None
    if delivery.exchange > max(offered, applied):
        raise fell_back(offered, delivery.exchange)
    if offer is None or delivery.exchange != offered:
        if dtype == FLOAT32 and now is None and not mean:
            return delivery.values  # nothing was left out
        raise not_known(delivery.exchange, member, offered, mean=mean)
    return taken_over(delivery.values, offered=offer, dtype=dtype, now=now, mean=mean)


def fell_back(offered: int, exchange: int) -> NotJoinedError:
    """Return what is to be said of a delivery for an offer that the member does not know of."""
    return NotJoinedError(
        f"it fell back to a state before what it had offered: its last offer was for exchange {offered}, "
        f"and it has a delivery of exchange {exchange}.",
        fell_back=True,
    )


def not_known(exchange: int, member: int, offered: int, *, mean: bool = False) -> ExchangeError:
    """Return what is to be said of a delivery for an offer before the last one; ``mean`` as above."""
    unknown = "it offered then" if mean else "its offer then left out"
    return ExchangeError(
        f"a delivery of exchange {exchange} for member {member}, whose last offer was "
        f"for {offered}: what {unknown} is not known any more."
    )
