"""Why a member is missing is heard by whoever watches: in the error, the round's report, the client's log."""

import json
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from flwr.app import Context, Error, Message

from wash_fl import __version__
from wash_fl.errors import RunError, described
from wash_fl.flower import outbox, records
from wash_fl.flower.client import Participant, Round, member_index
from wash_fl.flower.failures import GONE, KILLED, Failure, understand
from wash_fl.flower.in_process import Deliver
from wash_fl.flower.traffic import Traffic
from wash_fl.runs.events import round_fields
from wash_fl.sources import Sources

from fleet import Fleet, is_train, round_of

SAID = "ValueError: Target 10 is out of bounds (my_task.py:2)"


pytestmark = pytest.mark.usefixtures("flower_log")


def users(
    folder: Path, raises: str = "ValueError('Target 10 is out of bounds.\\nmore')"
) -> Callable[..., Any]:
    """Return a function of a user's own file that raises."""
    path = folder / "my_task.py"
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(f"def fail(*_):\n    raise {raises}\n")
    module = types.ModuleType("my_task")
    exec(compile(path.read_text(), str(path), "exec"), vars(module))
    fail: Callable[..., Any] = module.fail
    return fail


class Failing(Fleet):
    """Members whose code raises in one place."""

    where = "train"
    who: Any = (0, 1, 2, 3)
    fail: Any = None

    def bring(self, context: Context) -> Participant:
        brought = super().bring(context)
        member = member_index(context)
        if member not in self.who:
            return brought
        if self.where == "build":
            self.fail()
        return Participant(**{**vars(brought), self.where: self.fail})


def failing(folder: Path, where: str = "train", who: Any = (0, 1, 2, 3), **options: Any) -> Failing:
    fleet = Failing(folder, **options)
    fleet.where, fleet.who, fleet.fail = where, who, users(folder)
    return fleet


@pytest.mark.parametrize("where", ["train", "evaluate"])
def test_what_every_member_raises_in_the_first_round_ends_the_run_at_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, where: str
) -> None:
    fleet = failing(tmp_path, where, evaluate_every=1)
    with pytest.raises(RunError) as caught:
        fleet.run()
    assert str(caught.value) == f"no member took part in round 1: members 0, 1, 2, 3: {SAID}; see the log."
    assert "Traceback" in caplog.text and 'my_task.py", line 2' in caplog.text, (
        "the client's log has all of it"
    )


def test_what_building_the_participant_raises_is_said_by_who_could_not_join(tmp_path: Path) -> None:
    with pytest.raises(RunError) as caught:
        failing(tmp_path, "build").run()
    assert str(caught.value) == f"0 of 4 members joined: members 0, 1, 2, 3: {SAID}."
    with pytest.raises(RunError) as caught:
        failing(tmp_path / "one", "build", who=[1]).run()
    assert str(caught.value) == f"3 of 4 members joined: member 1: {SAID}."


def test_who_has_another_wash_fl_is_not_even_asked_to_build_and_says_which_is_older(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fleet = failing(tmp_path, "build")
    monkeypatch.setattr(outbox, "own_sources", lambda: Sources("999.0", "0123456789abcdef"))
    with pytest.raises(RunError) as caught:
        fleet.run()
    assert str(caught.value) == (
        f"0 of 4 members joined: members 0, 1, 2, 3: this device has wash_fl {__version__} and the server "
        "999.0, so the device's is the older: install the same wash_fl on both, or run with wash-fl serve "
        "--ship-code."
    )


def test_what_calibration_raises_is_in_the_log_and_the_others_do_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    failing(tmp_path, "calibration", who=[0]).run()
    assert f"member 0 refused recalibrate: {SAID}" in caplog.text


def test_each_absent_member_has_its_reason_in_the_rounds_report(tmp_path: Path) -> None:
    def trouble(member: int, request: Message, deliver: Deliver) -> list[Message]:
        if not is_train(request) or round_of(request) != 2:
            return deliver(request)
        if member == 1:
            return []
        if member == 2:
            return [Message(Error(2, "<class 'my.OwnError'>:<'too\nmuch'>"), reply_to=request)]
        return deliver(request)

    fleet = failing(tmp_path, who=[0], fault=trouble, members=5)
    fleet.fail = lambda now: users(tmp_path)() if now.number == 2 else {}
    fleet.on_round = lambda report: fleet.grid.offline.add(3) if report.round == 1 else None
    fleet.run()
    second = fleet.reports[1]
    assert second.absent == (0, 1, 2, 3) and sorted(second.metrics) == [4]
    assert second.absent_because == {
        0: SAID,
        1: "no reply in time",
        2: "its ClientApp raised an exception: OwnError: too",
        3: "it is not connected",
    }
    # Who takes part again has no reason any more.
    assert fleet.reports[-1].absent_because == {3: "it is not connected"}
    assert fleet.reports[0].absent_because == {}


def test_a_member_that_was_refused_at_joining_is_said_in_every_round_and_at_the_end(
    tmp_path: Path,
) -> None:
    fleet = failing(tmp_path, "build", who=[2], min_members=3, rounds=2)
    strategy = fleet.strategy()
    fleet.start(strategy)
    assert [report.absent for report in fleet.reports] == [(), ()]
    assert [report.absent_because for report in fleet.reports] == [{2: SAID}] * 2
    assert strategy.left_out == {2: f"it was not there when the members were collected: {SAID}"}


def test_a_reason_is_forgotten_once_a_member_takes_part_again(tmp_path: Path) -> None:
    fleet = failing(tmp_path, who=[1], rounds=3)
    fleet.fail = lambda now: users(tmp_path)() if now.number == 1 else {}
    fleet.on_round = lambda report: fleet.grid.offline.add(1) if report.round == 3 else None
    strategy = fleet.strategy()
    fleet.start(strategy)
    assert [report.absent_because for report in fleet.reports] == [{1: SAID}, {}, {}]
    assert strategy.left_out == {1: "it was not there when the members were collected"}


def test_the_rounds_event_in_the_runs_metrics_has_the_reasons(tmp_path: Path) -> None:
    fleet = failing(tmp_path, who=[1], rounds=1)
    fleet.run()
    event = json.loads(json.dumps(round_fields(fleet.reports[0], Traffic())))
    assert event["absent"] == [1] and event["absent_because"] == {"1": SAID}


def test_one_that_is_given_up_is_left_out_with_its_last_reason(tmp_path: Path) -> None:
    fleet = failing(tmp_path, who=[1], rounds=5)
    strategy = fleet.strategy(give_up_after=2)
    fleet.start(strategy)
    assert strategy.left_out == {1: f"given-up: it did not take part in 2 rounds in a row: {SAID}"}
    assert [report.absent_because for report in fleet.reports] == [{1: SAID}] * 2 + [{}] * 3


def test_a_run_whose_members_once_trained_or_do_not_answer_has_three_rounds(
    tmp_path: Path,
) -> None:
    fleet = failing(tmp_path / "later")
    fleet.fail = lambda now: users(tmp_path)() if now.number > 1 else {}
    with pytest.raises(RunError, match=r"in round 4 and the 2 before it: members 0, 1, 2, 3: ValueError"):
        fleet.run()

    def silent(member: int, request: Message, deliver: Deliver) -> list[Message]:
        return [] if is_train(request) and member == 3 else deliver(request)

    with pytest.raises(RunError) as caught:
        failing(tmp_path / "silent", who=[0, 1, 2], fault=silent).run()
    assert str(caught.value) == (
        f"no member took part in round 3 and the 2 before it: members 0, 1, 2: {SAID}; "
        "member 3: no reply in time; see the log."
    )


def test_a_round_without_enough_members_says_who_is_missing_and_why(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, min_members=3)
    fleet.on_round = lambda report: fleet.grid.offline.update({0, 1}) if report.round == 2 else None
    with pytest.raises(
        RunError, match=r"round 3: 2 of the 3 .* \(members 0, 1: it is not connected\)\. Bring"
    ):
        fleet.run()


def test_nobody_who_hands_in_a_model_is_an_error_with_the_reasons(tmp_path: Path) -> None:
    def silent(member: int, request: Message, deliver: Deliver) -> list[Message]:
        return [] if request.metadata.message_type == records.COLLECT else deliver(request)

    with pytest.raises(RunError, match="nothing to average: members 0, 1, 2, 3: no reply in time"):
        Fleet(tmp_path, fault=silent).run()


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_what_is_meant_to_end_a_process_is_no_refusal(tmp_path: Path, error: type[BaseException]) -> None:
    fleet = failing(tmp_path)

    def stop(now: Round) -> None:
        raise error

    fleet.fail = stop
    with pytest.raises(error):
        fleet.run()


@pytest.mark.parametrize(
    ("code", "reason", "said", "its_own"),
    [
        (
            2,
            "<class 'ValueError'>:<'Target 10 is\nout of bounds'>",
            "an exception: ValueError: Target 10 is",
            True,
        ),
        (2, "<class '__main__.f.<locals>.Mine'>:<''>", "an exception: Mine", True),
        (2, "Traceback\n  File\nRuntimeError: planted", "an exception: RuntimeError: planted", True),
        (2, "", "its ClientApp raised an exception", True),
        (
            2,
            "<class 'ModuleNotFoundError'>:<'No module named 'wash_fl.sources''>",
            "(ModuleNotFoundError: No module named 'wash_fl.sources'): install the same wash_fl on both",
            True,
        ),
        (
            2,
            "<class 'ImportError'>:<'cannot import name 'x' from 'wash_fl.config' (/opt/config.py)'>",
            f"missing, or not the server's {__version__} (ImportError: cannot import name 'x'",
            True,
        ),
        (
            2,
            "<class 'ModuleNotFoundError'>:<'No module named 'mine''>",
            "an exception: ModuleNotFoundError",
            True,
        ),
        (1, "An exception was raised", "could not be loaded: An exception was raised", True),
        (KILLED, "x", "its ClientApp was killed: x", True),
        (GONE, "", "its SuperNode is gone", False),
        (3, "late", "expired before it was answered: late", False),
        (77, "\x1b[31mred" * 900, "unknown error: [31mred", True),
    ],
)
def test_flowers_errors_are_said_on_one_line_with_what_was_raised(
    code: int, reason: str, said: str, its_own: bool
) -> None:
    from wash_fl.flower.in_process import identify_process

    identify_process()
    reply = Message(Error(code, reason), reply_to=records.request(1, records.TRAIN, {}, 10.0))
    failure = understand(reply)
    assert isinstance(failure, Failure)
    assert said in failure.reason and failure.its_own is its_own
    assert failure.reason.isprintable() and len(failure.reason) < 600


@pytest.mark.parametrize(
    ("raises", "said"),
    [
        ("KeyError('a')", "KeyError: 'a' (my_task.py:2)"),
        ("AssertionError", "AssertionError (my_task.py:2)"),
        ("RuntimeError('\\n\\n  two\\t words. \\nmore')", "RuntimeError: two words (my_task.py:2)"),
        ("ImportError('x' * 9999)", f"ImportError: {'x' * 300} (my_task.py:2)"),
        ("type('Odd', (Exception,), {'__str__': lambda self: 1 / 0})()", "Odd (my_task.py:2)"),
    ],
)
def test_what_was_raised_is_one_short_line_with_its_place(tmp_path: Path, raises: str, said: str) -> None:
    with pytest.raises(Exception) as caught:
        users(tmp_path, raises)()
    assert described(caught.value) == said


def test_an_error_of_pytorch_is_at_the_users_line(tmp_path: Path) -> None:
    fleet = failing(tmp_path)
    path = tmp_path / "loop.py"
    path.write_text(
        "import torch\n\n\ndef train(now):\n    loss = torch.nn.functional.cross_entropy(\n"
        "        torch.zeros(1, 3), torch.tensor([3])\n    )\n"
    )
    loop: dict[str, Any] = {}
    exec(compile(path.read_text(), str(path), "exec"), loop)
    fleet.fail = loop["train"]
    with pytest.raises(
        RunError, match=r"members 0, 1, 2, 3: IndexError: Target 3 is out of bounds \(loop.py:5\)"
    ):
        fleet.run()
