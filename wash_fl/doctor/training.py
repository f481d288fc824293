"""Whether a training step works here, fits in memory, and how long it takes: tried, not computed."""

import json
import os
import signal
import statistics
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any, Final

from wash_fl.checks.finding import MEGABYTE, Finding, megabytes
from wash_fl.config import RunConfig
from wash_fl.doctor.machine import Memory
from wash_fl.extras import install_hint
from wash_fl.system.peak import ProcessResult, watch

FLOWER: Final = 270 * MEGABYTE
"""What a SuperNode and its launcher take beside the ClientApp that trains: `wash-fl bench memory`."""

LONGEST: Final = 900.0
"""Seconds for the imports, the data and all steps."""

SMALLER: Final = (
    "use a smaller --batch-size or a smaller --model; stop what the device does not need; add swap or zram "
    "(docs/raspberry-pi.md, docs/jetson.md)"
)
AGAIN: Final = "mend this, and run wash-fl doctor again"


@dataclass(frozen=True)
class Trial:
    """What the program that trains (:mod:`wash_fl.doctor.probe`) came to.

    Attributes
    ----------
    process : ProcessResult
        How it ended.
    at : str
        What it did last.
    facts : dict
        What it found out.
    """

    process: ProcessResult
    at: str
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def peak(self) -> int:
        """Bytes that it had in RAM at most."""
        return max(self.process.peak, int(self.facts.get("peak", 0)))


def try_steps(
    config: RunConfig, member: int = 0, *, stand_in: tuple[int, ...] | None = None, timeout: float = LONGEST
) -> Trial:
    """Take a few training steps in a process of its own.

    Parameters
    ----------
    config : RunConfig
        The run's options.
    member : int
        Whose data is used.
    stand_in : tuple of int, optional
        The shape of random inputs to train on, instead of the task's data.
    timeout : float
        Seconds after which it is stopped.
    """
    request = {"options": config.to_mapping(), "member": member, "stand_in": stand_in}
    # With one thread, as a device's unit file has it.
    environment = os.environ | {"OMP_NUM_THREADS": "1", "FLWR_TELEMETRY_ENABLED": "0"}
    command = [sys.executable, "-m", "wash_fl.doctor.probe", json.dumps(request)]
    return read(watch(command, timeout=timeout, environment=environment))


def read(process: ProcessResult) -> Trial:
    """Read what the program said before it ended."""
    at, facts = "starting Python", dict[str, Any]()
    for line in process.out.splitlines():
        try:
            message = json.loads(line)
        except ValueError:
            continue
        if isinstance(message, dict):
            at = message.pop("at", at)
            facts |= message
    return Trial(process, at, facts)


def training(config: RunConfig, member: int, memory: Memory | None) -> Iterator[Finding]:
    """Try a few steps, and yield what they say of the data, the memory and the time."""
    if find_spec("torch") is None:
        yield Finding(
            "training step",
            "problem",
            "not tried: torch is not installed",
            f"{install_hint('client')}, to train here; wash-fl predict needs only the extra infer",
        )
        return
    yield from judge(try_steps(config, member), config, memory)


def judge(trial: Trial, config: RunConfig, memory: Memory | None) -> Iterator[Finding]:
    """Yield the findings on steps that were tried."""
    facts = trial.facts
    if "examples" in facts:
        yield Finding("data", "ok", f"{facts['examples']:,} examples of the task {config.task.task!r}")
    if "no_data" in facts:
        yield Finding("data", "problem", str(facts["no_data"]).rstrip("."), AGAIN)
    if trial.process.status != 0 or "seconds" not in facts:
        yield _failed(trial)
        return
    yield _fit(trial, config, memory)
    yield _pace(facts["seconds"], config)


def _failed(trial: Trial) -> Finding:
    status, peak = trial.process.status, megabytes(trial.peak)
    while_ = f"while {trial.at}"
    if trial.process.timed_out:
        problem, advice = (
            f"not done after {trial.process.seconds:,.0f} s, {while_}",
            "use a smaller --batch-size or --model; if it is swapping (free -h), it needs more memory",
        )
    elif "no_memory" in trial.facts or status == -signal.SIGKILL:
        how = "the system killed it" if status < 0 else f"it got no more memory ({trial.facts['no_memory']})"
        problem, advice = f"{how} at {peak}, {while_}: it does not fit", SMALLER
    elif status < 0:
        name = signal.Signals(-status).name
        problem, advice = (
            f"it died of {name} {while_}",
            "this build of PyTorch does not run on this processor: install another version "
            "(docs/raspberry-pi.md, step 2)",
        )
    elif "refused" in trial.facts:
        problem, advice = str(trial.facts["refused"]).rstrip("."), AGAIN
    else:
        last = [line for line in trial.process.err.splitlines() if line.strip()] or ["it said nothing"]
        problem, advice = f"it ended {while_}: {last[-1].strip()[:300]}", AGAIN
    return Finding("training step", "problem", problem, advice)


def _fit(trial: Trial, config: RunConfig, memory: Memory | None) -> Finding:
    model = config.task.model if config.task.model != "default" else f"the model of {config.task.task!r}"
    text = (
        f"{megabytes(trial.peak)} at most, with {model} ({trial.facts['parameters']:,} parameters) at batch "
        f"{config.training.batch_size}"
    )
    need = trial.peak + FLOWER
    if memory is None:
        return Finding("training step", "ok", text)
    beside = f"{text}; with {megabytes(FLOWER)} for Flower beside it {megabytes(need)}"
    if need > memory.available + memory.swap_free:
        return Finding(
            "training step",
            "problem",
            f"{beside}, of {megabytes(memory.available)} available and {megabytes(memory.swap_free)} of swap",
            SMALLER,
        )
    if need > memory.available:
        return Finding(
            "training step",
            "warning",
            f"{beside}, of {megabytes(memory.available)} available: it will "
            "swap, which is slow and wears a card",
            SMALLER,
        )
    return Finding("training step", "ok", f"{beside}, of {megabytes(memory.available)} available")


def _pace(seconds: list[float], config: RunConfig) -> Finding:
    step, training = statistics.median(seconds), config.training
    if training.local_seconds:
        return Finding(
            "pace",
            "ok",
            f"{_time(step)} per step, so about {max(1, round(training.local_seconds / step)):,} steps in a "
            f"round of {training.local_seconds:g} s",
        )
    round_ = step * training.local_steps
    text = f"{_time(step)} per step, so {_time(round_)} for a round of {training.local_steps} steps"
    if round_ > config.fleet.round_timeout:
        return Finding(
            "pace",
            "problem",
            f"{text}, longer than round-timeout = {config.fleet.round_timeout:g} s",
            "lower --local-steps, train by time (--local-seconds 120), or raise --round-timeout",
        )
    return Finding("pace", "ok", text)


def _time(seconds: float) -> str:
    return f"{1000 * seconds:,.0f} ms" if seconds < 1 else f"{seconds:,.1f} s"
