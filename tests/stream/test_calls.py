"""One call per member counts: the newest."""

from wash_fl.stream.calls import Calls


def test_what_an_older_call_brings_does_not_count_any_more():
    calls = Calls()
    first, second = object(), object()
    assert calls.admit(1, first) is None
    assert calls.counts(1, first) and calls.of(1) is first
    assert calls.admit(1, second) is first
    assert not calls.counts(1, first) and calls.counts(1, second) and calls.of(1) is second


def test_the_end_of_an_older_call_is_not_that_of_the_member():
    calls = Calls()
    first, second = object(), object()
    calls.admit(1, first)
    calls.admit(1, second)
    assert not calls.end(1, first)
    assert calls.of(1) is second
    assert calls.end(1, second)
    assert calls.of(1) is None and not calls.end(1, second)


def test_members_have_calls_of_their_own():
    calls = Calls()
    first, second = object(), object()
    calls.admit(1, first)
    calls.admit(2, second)
    assert calls.of(1) is first and not calls.counts(1, second)
