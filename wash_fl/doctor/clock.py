"""Whether the machine has the time: certificates and Flower's signatures depend on it."""

import shutil
import subprocess
import time
from pathlib import Path
from typing import Final

import wash_fl
from wash_fl.checks.finding import Finding

AHEAD, BEHIND = 5.0, 300.0
"""Seconds by which a SuperNode's clock may be ahead of the SuperLink's, and behind it, to be let in.

Flower accepts a signature of up to five minutes ago, and of five seconds from now.
"""
UNSURE: Final = 2.0
"""A server says whole seconds, so the difference is known to a second or two."""

SET: Final = (
    "timedatectl set-ntp true, and wait until timedatectl says that it is synchronized; without internet, "
    "point systemd-timesyncd to a time server in your network (/etc/systemd/timesyncd.conf)"
)


def clock(
    ahead: float | None,
    *,
    now: float | None = None,
    earliest: float | None = None,
    synced: bool | None = None,
) -> Finding:
    """Check this machine's clock.

    Parameters
    ----------
    ahead : float or None
        Seconds by which it is ahead of the SuperLink's, if that is known.
    now : float, optional
        Seconds since 1970, by this clock.
    earliest : float, optional
        A time that is certainly over: by default, when these files were installed.
    synced : bool, optional
        Whether it is kept by a time server; by default, as systemd says.
    """
    now = time.time() if now is None else now
    earliest = Path(wash_fl.__file__).stat().st_mtime if earliest is None else earliest
    text = f"{time.strftime('%Y-%m-%d %H:%M', time.gmtime(now))} UTC"
    if ahead is not None:
        return _beside_the_servers(ahead, text)
    if now < earliest - 86_400:
        return Finding("clock", "problem", f"{text}, which is before wash-fl was installed here", SET)
    synced = synchronized() if synced is None else synced
    if synced is False:
        return Finding("clock", "warning", f"{text}, not synchronized with a time server", SET)
    return Finding("clock", "ok", f"{text}{', synchronized' if synced else ''}")


def _beside_the_servers(ahead: float, text: str) -> Finding:
    difference = f"{abs(ahead):,.0f} s {'ahead of' if ahead > 0 else 'behind'} the SuperLink's"
    if ahead > AHEAD or ahead < -BEHIND:
        return Finding(
            "clock",
            "problem",
            f"{text}, {difference}: Flower lets a device in that is up to {AHEAD:g} s ahead or {BEHIND:g} s "
            "behind",
            f"{SET}; if it is right here, do the same on the server",
        )
    if ahead > UNSURE or ahead < -BEHIND / 10:
        return Finding("clock", "warning", f"{text}, {difference}", SET)
    return Finding("clock", "ok", f"{text}, as the SuperLink's to {max(UNSURE, abs(ahead)):.0f} s")


def synchronized() -> bool | None:
    """Return whether systemd holds the clock for synchronized, or None where it cannot be asked."""
    program = shutil.which("timedatectl")
    if program is None:
        return None
    try:
        process = subprocess.run(
            [program, "show", "--property=NTPSynchronized", "--value"],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return {"yes": True, "no": False}.get(process.stdout.strip())
