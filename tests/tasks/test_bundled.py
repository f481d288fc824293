"""Tests of the data that comes with the package: what is written is read, and what is damaged is refused."""

import base64
import io
import json
import sys
from hashlib import sha256

import numpy as np
import pytest

from wash_fl.errors import DataError
from wash_fl.tasks import bundled

ARRAYS = {"one": np.arange(300, dtype=np.int16).reshape(100, 3), "two": np.zeros(5, np.uint8)}


@pytest.fixture
def path(tmp_path):
    bundled.write(tmp_path / "data.json", "Numbers.", ARRAYS, hertz=25)
    return tmp_path / "data.json"


def with_archive(content, archive):
    return content | {
        "npz": [base64.b64encode(archive).decode()],
        "sha256": sha256(archive).hexdigest(),
    }


def flipped(content):
    archive = bytearray(base64.b64decode("".join(content["npz"])))
    archive[len(archive) // 2] ^= 1
    return content | {"npz": [base64.b64encode(archive).decode()]}


def pickled(content):
    archive = io.BytesIO()
    np.savez(archive, **(ARRAYS | {"two": np.array([{}] * 5)}), allow_pickle=True)
    return with_archive(content, archive.getvalue())


DAMAGED = {
    "another JSON": (lambda content: [1, 2], "is damaged"),
    "no base64": (lambda content: content | {"npz": ["AAA*"]}, "is damaged .*base64"),
    "no archive": (lambda content: with_archive(content, bytes(3)), "is damaged"),
    "an archive cut short": (
        lambda content: with_archive(content, base64.b64decode("".join(content["npz"]))[:-9]),
        "is damaged",
    ),
    "an entry missing": (lambda content: {"hertz": 25}, "is damaged .'npz'"),
    "a flipped bit": (flipped, "is damaged .its sha256 is another"),
    "a pickle in it": (pickled, "is damaged .Object arrays"),
}


def test_what_is_written_is_read_in_the_order_asked_for(path):
    (two, one), values = bundled.read(path, "two", "one")
    np.testing.assert_array_equal(one, ARRAYS["one"])
    np.testing.assert_array_equal(two, ARRAYS["two"])
    assert (one.dtype, two.dtype, values["hertz"]) == (np.int16, np.uint8, 25)
    assert values["about"].startswith("Numbers. npz:")


def test_the_same_arrays_are_the_same_file(path, tmp_path):
    bundled.write(tmp_path / "again.json", "Numbers.", ARRAYS, hertz=25)
    assert (tmp_path / "again.json").read_bytes() == path.read_bytes()


@pytest.mark.parametrize("case", DAMAGED)
def test_a_damaged_file_is_refused_by_name(path, case):
    change, message = DAMAGED[case]
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
    with pytest.raises(DataError, match=message) as raised:
        bundled.read(path, "one", "two")
    assert str(path) in str(raised.value) and "install wash-fl again" in str(raised.value)


@pytest.mark.parametrize("content", [b"", b"an error page", b"\xff\xfe", b'{"npz": ['])
def test_what_is_no_json_is_refused_by_name(path, refused, content):
    path.write_bytes(content)
    with refused(DataError, str(path), "is damaged", "install wash-fl again"):
        bundled.read(path, "one")


def test_an_array_that_is_not_in_it_is_named(path, refused):
    with refused(DataError, str(path), "three", "install wash-fl again"):
        bundled.read(path, "three")


def test_a_missing_file_is_refused_by_name(tmp_path, refused):
    with refused(DataError, str(tmp_path / "nowhere.json"), "No such file", "install wash-fl again"):
        bundled.read(tmp_path / "nowhere.json", "one")


def test_code_that_was_shipped_without_data_reads_the_installed_copys(path, monkeypatch, tmp_path):
    shipped = tmp_path / "shipped" / "wash_fl"
    monkeypatch.setattr(bundled, "_PACKAGE", shipped)
    installed = tmp_path / "installed" / "wash_fl" / "tasks" / "data" / "data.json"
    installed.parent.mkdir(parents=True)
    path.rename(installed)
    monkeypatch.setattr(sys, "path", ["", str(tmp_path / "shipped"), str(tmp_path / "installed")])
    (one,), _ = bundled.read(shipped / "tasks" / "data" / "data.json", "one")
    np.testing.assert_array_equal(one, ARRAYS["one"])


def test_data_that_was_not_shipped_and_is_not_installed_is_refused_by_name(monkeypatch, tmp_path, refused):
    monkeypatch.setattr(bundled, "_PACKAGE", tmp_path / "wash_fl")
    monkeypatch.setattr(sys, "path", [""])
    with refused(DataError, "data.json", "--ship-code brings no data", "install wash-fl"):
        bundled.read(tmp_path / "wash_fl" / "tasks" / "data" / "data.json", "one")
