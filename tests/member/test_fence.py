"""A member answers to the server that asked it last who it is: requests of an earlier one are not done."""

import stat

import pytest

from wash_fl.errors import StateError, UnmetError
from wash_fl.member.fence import Fence, check, meet
from wash_fl.member.snapshot import MemoryStore
from wash_fl.member.state import FENCE, FileStore

RUN = bytes(16)


@pytest.fixture(params=["memory", "disk"])
def store(request, tmp_path):
    return MemoryStore() if request.param == "memory" else FileStore(tmp_path / "state", RUN, 1)


def test_only_the_server_that_asked_last_is_answered(store):
    first = meet(store, "a")
    check(store, first)
    second = meet(store, "b")
    assert first != second and len(second) == 16
    check(store, second)
    with pytest.raises(UnmetError):
        check(store, first)


def test_a_server_that_asks_twice_is_told_the_same(store):
    assert meet(store, "a") == meet(store, "a")


def test_a_server_that_asks_again_after_another_is_told_another(store):
    """What it had sent before the other came must not be done after that."""
    first = meet(store, "a")
    meet(store, "b")
    assert meet(store, "a") != first


def test_who_has_no_token_is_answered(store):
    """A server of an older version has none, and neither has one that met a member whose disk was full."""
    check(store, "anything")
    meet(store, "a")
    check(store, "")
    assert meet(store, "") == ""


def test_it_outlasts_the_process_and_is_its_owners_alone(tmp_path):
    token = meet(FileStore(tmp_path, RUN, 1), "a")
    path = FileStore(tmp_path, RUN, 1).path.with_name(FENCE)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600 and stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert FileStore(tmp_path, RUN, 1).fence() == Fence("a", token)
    with pytest.raises(UnmetError):
        check(FileStore(tmp_path, RUN, 1), "0" * 16)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b'{"server": "a"}', b"null"])
def test_one_that_is_damaged_lets_nobody_through_until_a_server_asks_again(tmp_path, content):
    store = FileStore(tmp_path, RUN, 1)
    token = meet(store, "a")
    store.path.with_name(FENCE).write_bytes(content)
    with pytest.raises(UnmetError):
        check(store, token)
    check(store, meet(store, "a"))


def test_a_full_disk_leaves_no_token_and_a_member_that_goes_on(tmp_path, monkeypatch, caplog):
    store = FileStore(tmp_path, RUN, 1)

    def full(fence):
        raise StateError("no space left")

    monkeypatch.setattr(store, "keep_fence", full)
    with caplog.at_level("WARNING", "flwr.wash_fl"):
        assert meet(store, "a") == ""
    assert "no space left" in caplog.text


def test_what_cannot_be_written_says_so(tmp_path):
    store = FileStore(tmp_path, RUN, 1)
    store.path.with_name(FENCE).mkdir(parents=True)
    with pytest.raises(StateError, match="cannot be written"):
        store.keep_fence(Fence("a", "b"))
    with pytest.raises(UnmetError):
        check(store, "b")


def test_it_goes_with_the_state(tmp_path):
    store = FileStore(tmp_path, RUN, 1)
    meet(store, "a")
    with store.locked():
        store.remove()
    assert not any(tmp_path.iterdir())
