"""A SuperLink that fails for a moment does not end a run."""

from types import SimpleNamespace

import pytest

from wash_fl.clock import Clock
from wash_fl.flower.failures import pull
from wash_fl.flower.patience import PAUSES, patiently


class HTTPStatusError(Exception):
    def __init__(self, code):
        super().__init__(code)
        self.response = SimpleNamespace(status_code=code)


class Stopwatch(Clock):
    def __init__(self):
        self.slept = []

    def sleep(self, seconds):
        self.slept.append(seconds)


class SuperLink:
    """Fails so many times, and then answers."""

    def __init__(self, *codes):
        self.codes = list(codes)

    def __call__(self, *_):
        if self.codes:
            raise HTTPStatusError(self.codes.pop(0))
        return ["answer"]


def test_it_is_asked_again_until_it_answers(caplog, flower_log):
    clock = Stopwatch()
    assert patiently(SuperLink(500, 503, 500), clock) == ["answer"]
    assert clock.slept == list(PAUSES[:3])
    assert "the SuperLink failed (500); it is asked again in 1 s" in caplog.text


def test_for_about_a_minute():
    clock = Stopwatch()
    with pytest.raises(HTTPStatusError):
        patiently(SuperLink(*[500] * 100), clock)
    assert sum(clock.slept) == 60


@pytest.mark.parametrize("error", [HTTPStatusError(403), HTTPStatusError(404), KeyError("x")])
def test_what_is_not_its_fault_is_raised_at_once(error):
    clock = Stopwatch()

    def call():
        raise error

    with pytest.raises(type(error)):
        patiently(call, clock)
    assert clock.slept == []


def test_replies_are_pulled_patiently(monkeypatch):
    monkeypatch.setattr("wash_fl.flower.patience.Clock", Stopwatch)
    assert pull(SimpleNamespace(pull_messages=SuperLink(500)), ["message"]) == ["answer"]
