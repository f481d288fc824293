"""A run's count of bytes against the counters of the devices' own network interfaces."""

import json
from pathlib import Path

import pytest

from tests.end_to_end.apart import Apart, why_not

REASON = why_not()

pytestmark = [pytest.mark.long, pytest.mark.skipif(bool(REASON), reason=REASON)]

MEMBERS = 2
OPTIONS = {"rounds": 2, "local_steps": 4, "p": 0.3, "train_examples": 100, "test_examples": 50}


@pytest.mark.timeout(1500)
def test_what_a_run_counts_is_within_a_tenth_of_what_the_interfaces_carried(tmp_path: Path) -> None:
    with Apart(tmp_path / "f", MEMBERS).up() as fleet:

        def carried() -> dict[str, int]:
            return {
                "down": sum(map(fleet.received, range(MEMBERS))),
                "up": sum(map(fleet.sent, range(MEMBERS))),
            }

        run = fleet.serve(tmp_path, members=MEMBERS, run_name="one", **OPTIONS)
        before = carried()
        lines = []
        assert run.stdout is not None
        for line in run.stdout:
            lines.append(line)
            if "each member will send" in line:
                # Devices ask for work before a run as well, and that is not the run's.
                before = carried()
        assert run.wait() == 0, "".join(lines)
        after = carried()
    metrics = tmp_path / "runs" / "one" / "metrics.jsonl"
    events = [json.loads(line) for line in metrics.read_text().splitlines()]
    counted = next(each["bytes"] for each in events if each["event"] == "finished")
    for way in ("down", "up"):
        kinds = ("app", "messages", "models", "transport")
        total = sum(counted.get(f"{way}_{kind}", 0) for kind in kinds)
        assert total == pytest.approx(after[way] - before[way], rel=0.1), (way, counted, before, after)
