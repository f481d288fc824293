"""One coordinator for two threads: one at a time, and none once it has failed."""

import threading

import pytest

from wash_fl.errors import StateError
from wash_fl.stream.guard import Guard


def test_what_fails_in_one_thread_ends_the_other():
    guard = Guard(object(), lambda: 0.0)

    def fail():
        with pytest.raises(StateError), guard.turn():
            raise StateError("the disk is full")

    thread = threading.Thread(target=fail)
    thread.start()
    thread.join()
    with pytest.raises(StateError, match="the disk is full"), guard.turn():
        raise AssertionError("it was given once more")


def test_who_wants_it_meanwhile_waits():
    coordinator = object()
    guard = Guard(coordinator, lambda: 0.0)
    got = []

    def take():
        with guard.turn() as given:
            got.append(given)

    with guard.turn():
        thread = threading.Thread(target=take)
        thread.start()
        thread.join(0.05)
        assert thread.is_alive() and not got
    thread.join(5)
    assert got == [coordinator]
