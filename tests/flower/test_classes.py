"""Class names that a device numbers by what it has itself are refused when it joins."""

from pathlib import Path
from typing import Any

import pytest
from flwr.app import Context, Message

from wash_fl.errors import ConfigError, ExchangeError, RunError
from wash_fl.flower import records
from wash_fl.flower.client import Participant, member_index
from wash_fl.flower.in_process import Deliver
from wash_fl.protocol.classes import (
    checked_classes,
    classes_from_json,
    classes_to_json,
    refuse_other_classes,
)

from fleet import Fleet

CLASSES = ("cat", "dog", "owl")


class ClassFleet(Fleet):
    """Members with class names of their own."""

    own: Any = staticmethod(lambda member: CLASSES)

    def bring(self, context: Context) -> Participant:
        brought = super().bring(context)
        return Participant(**{**vars(brought), "classes": self.own(member_index(context))})


def run(folder: Path, own: Any, **options: Any) -> ClassFleet:
    fleet = ClassFleet(folder, rounds=2)
    fleet.own = own
    fleet.run(**options)
    return fleet


@pytest.mark.parametrize(
    ("own", "parts"),
    [
        (("cat", "owl"), ("class 1 is 'owl' here and 'dog' there (2 here, 3 there)",)),
        (("cat", "dog"), ("class 2 is missing here and 'owl' there",)),
        ((*CLASSES, "yak"), ("class 3 is 'yak' here and missing there (4 here, 3 there)",)),
        (("dog", "cat", "owl"), ("class 0 is 'dog' here and 'cat' there",)),
        (["Cat", "dog", "owl"], ("class 0 is 'Cat' here",)),
    ],
)
def test_a_device_whose_classes_are_others_is_refused_with_the_first_difference(
    tmp_path: Path, own: Any, parts: tuple[str, ...]
) -> None:
    with pytest.raises(
        RunError, match="3 of 4 members joined: member 2: this client's classes are not"
    ) as caught:
        run(tmp_path, lambda member: own if member == 2 else CLASSES, classes=CLASSES)
    for part in (*parts, "in one fixed order on all machines"):
        assert part in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("announced", "own"),
    [(CLASSES, CLASSES), (CLASSES, list(CLASSES)), (CLASSES, ()), ((), CLASSES), ((), ())],
)
def test_the_same_classes_or_none_on_one_side_are_no_reason_to_refuse(
    tmp_path: Path, announced: Any, own: Any
) -> None:
    fleet = run(tmp_path, lambda member: own, classes=announced)
    assert sorted(fleet.collected) == [0, 1, 2, 3]


def test_the_request_to_join_has_the_classes_in_a_field_that_may_be_missing(tmp_path: Path) -> None:
    sent: list[dict[str, Any]] = []

    def watch(member: int, request: Message, deliver: Deliver) -> list[Message]:
        if request.metadata.message_type == records.JOIN:
            sent.append(dict(request.content.config_records[records.RECORD]))
        return deliver(request)

    for announced in (CLASSES, ()):
        fleet = ClassFleet(tmp_path / str(len(announced)), rounds=1, fault=watch)
        fleet.run(classes=announced)
    with_classes, without = sent[0], sent[-1]
    assert with_classes.pop("classes") == '["cat", "dog", "owl"]'
    # Nothing else differs but which server it is: not the terms, and so not the identity of the run.
    assert with_classes.pop("server") != without.pop("server")
    assert with_classes == without


@pytest.mark.parametrize("classes", [{"a", "b"}, frozenset("ab"), {"a": 0}, "ab", (name for name in "ab"), 3])
def test_classes_without_an_order_are_refused_on_either_side(
    tmp_path: Path, refused: Any, classes: Any
) -> None:
    with refused(ConfigError, f"classes is a {type(classes).__name__}", "use a list or a tuple"):
        Fleet(tmp_path).strategy(classes=classes)
    with pytest.raises(RunError, match="0 of 4 members joined: members 0, 1, 2, 3: classes is a"):
        run(tmp_path, lambda member: classes)


def test_classes_that_are_no_texts_are_refused(refused: Any) -> None:
    with refused(ConfigError, "name 1 is '7', of type int"):
        checked_classes(("a", 7))  # type: ignore[arg-type]


@pytest.mark.parametrize("text", ["{", "[1]", "3", '{"a": 1}', "[" * 100_000])
def test_classes_from_the_wire_that_are_none_are_refused(refused: Any, text: str) -> None:
    with refused(ExchangeError, "classes cannot be read"):
        classes_from_json(text)


def test_classes_come_back_from_the_wire_and_a_long_name_is_shown_in_part(refused: Any) -> None:
    names = ("é", "a b", "", "\n")
    assert classes_from_json(classes_to_json(names)) == names
    assert classes_from_json("") == ()
    with refused(ConfigError, f"'{'x' * 60}' here and 'a' there"):
        refuse_other_classes(["a"], ["x" * 1000])
