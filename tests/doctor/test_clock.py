"""A wrong clock is found with the SuperLink's help or without it."""

import subprocess

import pytest

from wash_fl.doctor import clock as room
from wash_fl.doctor.clock import clock

NOON = 1_800_000_000.0


@pytest.mark.parametrize(
    ("ahead", "level"),
    [
        (0.4, "ok"),
        (-1.0, "ok"),
        (3.0, "warning"),
        (6.0, "problem"),
        (-20.0, "ok"),
        (-100.0, "warning"),
        (-310.0, "problem"),
        (1e9, "problem"),
    ],
)
def test_beside_the_superlinks_clock_the_limits_are_flowers(ahead, level):
    assert clock(ahead, now=NOON, earliest=NOON - 9e9).level == level


def test_the_limits_are_those_of_the_installed_flower():
    from flwr.common.constant import SYSTEM_TIME_TOLERANCE, TIMESTAMP_TOLERANCE

    assert (room.AHEAD, room.BEHIND) == (SYSTEM_TIME_TOLERANCE, TIMESTAMP_TOLERANCE)


def test_a_clock_before_the_installation_is_wrong():
    assert clock(None, now=NOON, earliest=NOON + 10 * 86_400, synced=True).level == "problem"
    assert clock(None, now=NOON, earliest=NOON - 60, synced=True).level == "ok"


def test_a_clock_that_is_not_synchronized_is_a_warning_and_one_that_nobody_knows_of_is_not():
    assert clock(None, now=NOON, earliest=0, synced=False).level == "warning"
    assert "synchronized" in clock(None, now=NOON, earliest=0, synced=True).detail


@pytest.mark.parametrize(("answer", "meant"), [("yes\n", True), ("no\n", False), ("", None)])
def test_systemd_is_asked_in_its_words(monkeypatch, answer, meant):
    monkeypatch.setattr(room.shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(
        room.subprocess,
        "run",
        lambda *arguments, **options: subprocess.CompletedProcess(arguments, 0, answer, ""),
    )
    assert room.synchronized() is meant


def test_without_systemd_nothing_is_known(monkeypatch):
    monkeypatch.setattr(room.shutil, "which", lambda name: None)
    assert room.synchronized() is None
    monkeypatch.setattr(room.shutil, "which", lambda name: "/no/such/program")
    assert room.synchronized() is None
