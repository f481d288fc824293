"""A process that makes everything of a task anew: ``python -m wash_fl.checks.twin``.

It differs from the first in what no task may depend on: the order of sets and of folders' entries, the state
of every generator, the time. It has the path and the folder that Flower's processes have. It is told what to
do, and answers, in JSON.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import redirect_stdout, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from wash_fl.errors import DataError, WashError

if TYPE_CHECKING:
    import torch

    from wash_fl.checks.fingerprint import Fingerprint
    from wash_fl.config import RunConfig

LONGEST: Final = 600.0
"""Seconds for it: the imports, and what the task takes to make its data."""

SEEDS: Final = 20
"""Tries for an order of the classes as a set that is another than here: of two names every second is."""


class Twin:
    """That process, from outside.

    Parameters
    ----------
    config : RunConfig
        The run's options.
    inputs, targets : torch.Tensor
        What its model is to answer, and what the loss takes with the answers.
    """

    def __init__(self, config: "RunConfig", inputs: "torch.Tensor", targets: "torch.Tensor") -> None:
        import torch
        from safetensors.torch import save_file

        from wash_fl.tasks.task import load_task

        self._task = config.task.task
        self._folder = tempfile.TemporaryDirectory(prefix="wash-")
        self._fingerprint: Fingerprint | None = None
        place = Path(self._folder.name)
        save_file({"inputs": inputs.contiguous(), "targets": targets.contiguous()}, place / EXAMPLES)
        request = {"options": config.to_mapping(), "folder": str(place), "threads": torch.get_num_threads()}
        with (place / STDERR).open("wb") as errors:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "wash_fl.checks.twin", json.dumps(request)],
                env=_environment(load_task(config.task.task).classes),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=errors,
            )

    def fingerprint(self) -> "Fingerprint":
        """Wait for what it makes of the task.

        Raises
        ------
        DataError
            If the task does not work there, or takes too long.
        """
        from wash_fl.checks.fingerprint import Fingerprint

        if self._fingerprint is None:
            try:
                self._process.wait(LONGEST)
            except subprocess.TimeoutExpired:
                reason = f"it is not done after {LONGEST:g} s"
                raise DataError(self._refusal(reason)) from None
            reply = self._reply()
            if "refused" in reply:
                raise DataError(self._refusal(str(reply["refused"]).rstrip(".")))
            self._fingerprint = Fingerprint.from_json(reply)
        return self._fingerprint

    def end(self) -> None:
        """Stop it, if it still runs, and remove its files."""
        with suppress(OSError):
            self._process.kill()
        self._process.wait()
        self._folder.cleanup()

    def _reply(self) -> dict[str, Any]:
        place = Path(self._folder.name)
        try:
            reply: dict[str, Any] = json.loads((place / REPLY).read_text(encoding="utf-8"))
            return reply
        except (OSError, ValueError):
            lines = (place / STDERR).read_text(encoding="utf-8", errors="replace").split("\n")
            last = next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing")
            return {"refused": f"it ended with status {self._process.returncode} ({last[:200]})"}

    def _refusal(self, reason: str) -> str:
        return (
            f"the task {self._task!r} works here, and not in a new process as each client is ({reason}): let "
            "it depend on its own file and its data alone."
        )


EXAMPLES, REPLY, STDERR = "examples.safetensors", "reply.json", "stderr"


def _environment(classes: tuple[str, ...]) -> dict[str, str]:
    """Return the environment of Flower's processes, with another order of sets."""
    package = str(Path(__file__).resolve().parents[2])
    paths = [str(Path.cwd()), os.environ.get("PYTHONPATH"), package]
    return os.environ | {
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        "PYTHONHASHSEED": str(_other_seed(classes)),
    }


def _other_seed(classes: tuple[str, ...]) -> int:
    """Return a seed of Python's hashes by which the classes as a set have another order than here."""
    program = "import json, sys; print(json.dumps(list(set(json.loads(sys.argv[1])))))"
    command, here = [sys.executable, "-S", "-c", program, json.dumps(classes)], list(set(classes))
    for seed in range(1, SEEDS):
        environment = os.environ | {"PYTHONHASHSEED": str(seed)}
        process = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if process.returncode == 0 and json.loads(process.stdout) != here:
            return seed
    return SEEDS


def main(request: dict[str, Any]) -> None:
    """Make the fingerprint, and write it, or why there is none, into the folder that was named."""
    place = Path(request["folder"])
    try:
        # What the task prints is nobody's answer.
        with redirect_stdout(sys.stderr):
            reply = _fingerprint(request, place).as_json()
    except WashError as error:
        reply = {"refused": str(error)}
    (place / REPLY).write_text(json.dumps(reply), encoding="utf-8")


def _fingerprint(request: dict[str, Any], place: Path) -> "Fingerprint":
    import torch
    from safetensors.torch import load_file

    from wash_fl.checks import fingerprint as prints
    from wash_fl.checks.look import look
    from wash_fl.checks.subject import member_looks
    from wash_fl.config import RunConfig
    from wash_fl.export.reference import answers
    from wash_fl.member.training import laid_out
    from wash_fl.runs.exporting import card_of
    from wash_fl.tasks.division import checked
    from wash_fl.tasks.models import build_model, initial_model
    from wash_fl.tasks.task import load_task

    torch.set_num_threads(request["threads"])
    config = RunConfig.from_mapping(request["options"])
    _turn_folders_around()
    task = load_task(config.task.task)
    train = look(checked(task.train_data(), task, "train_data()"), "train_data()", seeded=True)
    test = look(checked(task.test_data(), task, "test_data()"), "test_data()", seeded=False)
    state = initial_model(config.task.model, task, config.training.seed).state_dict()
    # As whoever evaluates or exports does: built with no seed, and then given the weights.
    model = laid_out(build_model(config.task.model, task), config.training).eval()
    model.load_state_dict(state)
    examples = load_file(place / EXAMPLES)
    outputs = answers(model, examples["inputs"], card_of(task))
    return prints.Fingerprint(
        names=prints.names_of(task),
        weights=prints.weights_of(model),
        outside=prints.outside_of(model),
        answers=outputs.tolist(),
        loss=prints.loss_of(task, examples["targets"]),
        train=prints.DataPrint.of(train),
        test=prints.DataPrint.of(test),
        members=[prints.DataPrint.of(each) for each in member_looks(task, config, backwards=True)],
    )


def _turn_folders_around() -> None:
    """List folders in the reverse of the order that the file system gives: it promises none."""
    original_listdir, original_scandir = os.listdir, os.scandir

    def listdir(*path: Any) -> list[Any]:
        return original_listdir(*path)[::-1]

    class Scan:
        """What ``os.scandir`` returns: an iterator, and a context."""

        def __init__(self, *path: Any) -> None:
            with original_scandir(*path) as entries:
                self._entries = iter(list(entries)[::-1])

        def __iter__(self) -> Iterator[Any]:
            return self

        def __next__(self) -> Any:
            return next(self._entries)

        def __enter__(self) -> "Scan":
            return self

        def __exit__(self, *error: object) -> None:
            self.close()

        def close(self) -> None:
            self._entries = iter(())

    os.listdir = listdir  # type: ignore[assignment]
    os.scandir = Scan  # type: ignore[assignment]


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
