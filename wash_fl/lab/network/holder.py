"""The process that holds a network: its namespaces and wires are gone when it ends, however it does.

It takes orders, a JSON object per line, and answers each with another; at the end of its input it ends.
"""

import json
import os
import select
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from wash_fl.errors import WashError
from wash_fl.lab.network import emulation
from wash_fl.lab.network.emulation import Emulation
from wash_fl.lab.network.link import Link
from wash_fl.lab.network.namespaces import new_namespace
from wash_fl.lab.network.tunnels import Tunnels
from wash_fl.lab.network.wires import Ends, Wires, as_json, bring_up_loopback, set_address

NETEM, TUN = "netem", "tun"

KINDS: Final[Mapping[str, Callable[[Ends], Wires]]] = {NETEM: Emulation, TUN: Tunnels}
"""How links are made."""

_INPUT: Final = 0


def main(arguments: Sequence[str]) -> None:
    """Make a network of so many devices, say so, and hold it.

    Parameters
    ----------
    arguments : sequence of str
        How many; and one of :data:`KINDS`, or what this kernel has if it is empty.
    """
    devices, kind = int(arguments[0]), arguments[1]
    try:
        ends = Ends(new_namespace(), [new_namespace() for _ in range(devices)])
        kind = kind or (NETEM if emulation.is_known(ends.server) else TUN)
        bring_up_loopback(ends)
        wires = KINDS[kind](ends)
    except WashError as error:
        _say({"error": str(error)})
        return
    _say({"kind": kind, "server": ends.server, "devices": list(ends.devices)})
    _hold(ends, wires)


def _hold(ends: Ends, wires: Wires) -> None:
    poll = select.poll()
    for file in (_INPUT, *wires.files()):
        poll.register(file, select.POLLIN)
    unread = b""
    while True:
        seconds = wires.proceed()
        # A millisecond at least, or it would spin until the packet is due.
        for file, _ in poll.poll(None if seconds is None else max(1.0, 1000 * seconds)):
            if file != _INPUT:
                wires.take(file)
                continue
            content = os.read(_INPUT, 65536)
            if not content:
                return
            *lines, unread = (unread + content).split(b"\n")
            for line in lines:
                _say(_answer(ends, wires, json.loads(line)))


def _answer(ends: Ends, wires: Wires, order: dict[str, Any]) -> dict[str, Any]:
    try:
        if order["do"] == "change":
            wires.change(order["device"], Link(**order["link"]))
        elif order["do"] == "move":
            set_address(ends, order["device"], order["number"])
        elif order["do"] == "count":
            return {"counts": as_json(wires.counts())}
        else:
            return {"error": f"{order['do']!r} is not known."}
    except WashError as error:
        return {"error": str(error)}
    return {}


def _say(answer: dict[str, Any]) -> None:
    print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
