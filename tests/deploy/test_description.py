"""The file that says what a fleet is: whole, checked when it is read, and never guessed at."""

import json

import pytest

from wash_fl.deploy.description import FILE, Description
from wash_fl.errors import RunError

MARK = "0123456789abcdef"


def test_what_is_saved_is_read_back(tmp_path):
    description = Description(MARK, 3, 8443, ("17", ""))
    description.save(tmp_path)
    assert Description.load(tmp_path) == description
    assert [each.name for each in tmp_path.iterdir()] == [FILE]


def test_a_folder_without_one_is_no_fleet(tmp_path, refused):
    with refused(RunError, str(tmp_path), "wash-fl fleet up"):
        Description.load(tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        {"mark": ""},
        {"mark": "short"},
        {"mark": 7},
        {"members": 0},
        {"members": "3"},
        {"members": True},
        {"port": 0},
        {"port": 65536},
        {"nodes": [1]},
        {"nodes": "123"},
        {"nodes": ["1", "2", "3", "4"]},
    ],
)
def test_a_damaged_one_is_refused(tmp_path, refused, change):
    Description(MARK, 3, 8443, ("1",)).save(tmp_path)
    content = json.loads((tmp_path / FILE).read_text()) | change
    (tmp_path / FILE).write_text(json.dumps(content))
    with refused(RunError, FILE, "is damaged"):
        Description.load(tmp_path)


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("{", "damaged"),
        ("\x00", "damaged"),
        ("[]", "version None"),
        ('{"version": 2}', "version 2"),
        ('{"version": 1}', "mark"),
    ],
)
def test_what_is_no_description_is_refused(tmp_path, refused, text, word):
    (tmp_path / FILE).write_text(text)
    with refused(RunError, FILE, word):
        Description.load(tmp_path)
