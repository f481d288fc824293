"""A campaign of runs on fleets of real processes, to each of which something happens: each must bear it.

    python tools/campaign.py --runs 60
    python tools/campaign.py --first 17 --runs 1     # one of them again

Each run has a fleet of its own on this machine, a SuperLink and three SuperNodes with TLS and keys; a plane,
a recipe, and up to three disturbances, all drawn from the seed and the run's number: processes that are
killed or stand still, links that are cut, devices at other addresses, disks that are full or read-only,
flipped bits. It must end by itself within what is documented of how it waits, with the weights of an
undisturbed run if all members were there, with nothing that `wash-fl audit` finds, and with nothing left
behind. The exit status is 1 if one did not. As root the fleet's parts are in network namespaces of their
own; without, what happens to networks and disks is left out, which is said.

A run takes some minutes; this is no part of `make test`.
"""

import argparse
import json
import os
import shutil
import sys
import tempfile
from itertools import zip_longest
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from wash_fl.config import RunConfig
from wash_fl.errors import WashError
from wash_fl.lab.campaign.disturbed import disturbed_run
from wash_fl.lab.campaign.judge import Outcome, wrongs
from wash_fl.lab.campaign.plan import DISK, NETWORK, Kind, Plan, plan_of
from wash_fl.lab.compare.trainer import Trainer
from wash_fl.lab.machine import folder_in_memory
from wash_fl.lab.network.namespaces import own_mounts
from wash_fl.lab.network.network import Network
from wash_fl.system.interrupts import interruptible


def main() -> None:
    """Do the campaign."""
    arguments = _arguments()
    console = Console(stderr=arguments.json)
    kinds, without = _possible()
    if without:
        console.print(f"left out here: {without}", highlight=False)
    rows: list[dict[str, Any]] = []
    with interruptible():
        for number in range(arguments.first, arguments.first + arguments.runs):
            rows.append(_row(arguments.seed, number, kinds, Path(arguments.keep) if arguments.keep else None))
            _show(console, rows[-1])
    failures = [row for row in rows if row["wrongs"]]
    if arguments.json:
        print(json.dumps({"seed": arguments.seed, "runs": rows, "failures": len(failures)}))
    else:
        console.print(_table(rows))
        console.print(f"{len(rows)} runs, {len(failures)} of them wrong", highlight=False)
    sys.exit(1 if failures else 0)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--runs", type=int, default=60, help="how many runs")
    parser.add_argument("--first", type=int, default=0, help="number of the first, to see one again")
    parser.add_argument("--seed", type=int, default=0, help="another seed, other runs")
    parser.add_argument("--keep", default="", help="a folder in which runs that went wrong are kept")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser.parse_args()


def _possible() -> tuple[list[Kind], str]:
    """Return what can be made to happen here, and what cannot, and why."""
    try:
        with Network(1):
            pass
        own_mounts()
    except WashError as error:
        rest: list[Kind] = [kind for kind in Kind if kind not in (*NETWORK, *DISK)]
        return rest, f"{', '.join((*NETWORK, *DISK))} ({str(error).rstrip('.')})"
    return list(Kind), ""


def _row(seed: int, number: int, kinds: list[Kind], keep: Path | None) -> dict[str, Any]:
    plan = plan_of(seed, number, kinds)
    undisturbed = _undisturbed(plan)
    # In memory if possible: processes are killed here, and no power fails.
    root = Path(tempfile.mkdtemp(prefix="campaign-", dir=folder_in_memory()))
    try:
        try:
            outcome = disturbed_run(plan, root, undisturbed, seed=seed, with_network=Kind.PARTITION in kinds)
        except WashError as error:
            outcome = Outcome(seconds=0.0, by_itself=True, error=str(error))
        lines = wrongs(plan, outcome)
        if lines and keep is not None:
            shutil.copytree(root, keep / f"{seed}-{number}", dirs_exist_ok=True, ignore=_sockets)
    finally:
        shutil.rmtree(root, ignore_errors=True)
    return _as_row(plan, outcome, lines)


def _undisturbed(plan: Plan) -> str:
    """Return the hash of the averaged weights if nothing happens: the trainer's, which are the fleet's."""
    return Trainer(RunConfig.from_mapping(plan.options)).run().sha256


def _sockets(folder: str, names: list[str]) -> list[str]:
    return [
        name for name in names if not (Path(folder) / name).is_file() and not (Path(folder) / name).is_dir()
    ]


def _as_row(plan: Plan, outcome: Outcome, lines: list[str]) -> dict[str, Any]:
    return {
        "run": plan.number,
        "plane": plan.plane,
        "recipe": plan.options["recipe"],
        "disturbances": [
            {"what": str(each), "not_done": why}
            for each, why in zip_longest(plan.disturbances, outcome.happened, fillvalue="")
        ],
        "seconds": outcome.seconds,
        "limit": plan.limit,
        "end": outcome.error or ("finished" if outcome.by_itself else "not by itself"),
        "members": sorted(outcome.members),
        "absent": sorted(outcome.absent),
        "anew": sorted(outcome.anew),
        "same_weights": outcome.sha256 == outcome.undisturbed,
        "audit": "exact" if not outcome.problems else "; ".join(outcome.problems),
        "notes": dict(outcome.notes),
        "wrongs": lines,
    }


def _show(console: Console, row: dict[str, Any]) -> None:
    console.print(
        f"run {row['run']}, {row['plane']}, {row['recipe']}: {_disturbances(row)}: {_end(row)}",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )


def _table(rows: list[dict[str, Any]]) -> Table:
    table = Table("run", "plane", "recipe", "what happened", "s", "what came out")
    for row in rows:
        table.add_row(
            str(row["run"]),
            row["plane"],
            row["recipe"],
            _disturbances(row, "\n"),
            f"{row['seconds']:.0f}",
            _end(row),
        )
    return table


def _disturbances(row: dict[str, Any], between: str = "; ") -> str:
    return (
        between.join(
            each["what"] + (f" [not done: {each['not_done']}]" if each["not_done"] else "")
            for each in row["disturbances"]
        )
        or "nothing"
    )


def _end(row: dict[str, Any]) -> str:
    if row["wrongs"]:
        return "WRONG: " + "; ".join(row["wrongs"])
    parts = [row["end"] if row["end"] == "finished" else f"refused: {row['end']}", f"{row['seconds']:.0f} s"]
    if row["end"] == "finished":
        parts.append("the same weights" if row["same_weights"] else "other weights")
        for name in ("absent", "anew"):
            if row[name]:
                parts.append(f"{name}: {row[name]}")
        parts.append("audit exact")
    return ", ".join(parts)


if __name__ == "__main__":
    if os.name != "posix":
        sys.exit("a campaign needs signals: run it on Linux or macOS.")
    main()
