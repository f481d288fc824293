"""Tables of readings: how they are cut into windows, and what is refused."""

import numpy as np
import pytest

from wash_fl.errors import ExportError
from wash_fl.export.windows import read_windows

SHAPE = (2, 3)  # two channels, three moments


def table(rows):
    return [[number, -number / 4] for number in range(1, rows + 1)]


def write(path, rows, header=""):
    path.write_text(header + "".join(f"{first}, {second}\n" for first, second in rows))
    return path


def refusal(path, shape=SHAPE, **options):
    with pytest.raises(ExportError) as caught:
        read_windows(path, shape, **options)
    assert len(str(caught.value).splitlines()) == 1 and str(path) in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("header", ["", "ax,wx\n", "\ufeffax,wx\n", "\n\nax,wx\n"])
def test_columns_become_channels_and_rows_time_with_or_without_names(tmp_path, header):
    windows, rows, left_over = read_windows(write(tmp_path / "a.csv", table(6), header), SHAPE)
    expected = [[[1, 2, 3], [-0.25, -0.5, -0.75]], [[4, 5, 6], [-1, -1.25, -1.5]]]
    np.testing.assert_array_equal(windows, expected)
    assert (windows.dtype, rows, left_over) == (np.float32, [(1, 3), (4, 6)], 0)


@pytest.mark.parametrize(
    ("rows", "stride", "expected", "left_over"),
    [
        (8, None, [(1, 3), (4, 6)], 2),
        (3, None, [(1, 3)], 0),
        (5, 1, [(1, 3), (2, 4), (3, 5)], 0),
        (6, 2, [(1, 3), (3, 5)], 1),
        (9, 5, [(1, 3), (6, 8)], 1),
    ],
)
def test_the_stride_says_where_windows_start_and_the_rest_is_counted(
    tmp_path, rows, stride, expected, left_over
):
    windows, places, rest = read_windows(write(tmp_path / "a.csv", table(rows)), SHAPE, stride=stride)
    assert (places, rest) == (expected, left_over)
    assert windows[:, 0].tolist() == [list(range(first, last + 1)) for first, last in expected]


def test_a_model_without_time_answers_each_row(tmp_path):
    windows, rows, left_over = read_windows(write(tmp_path / "a.csv", table(2)), (2,))
    np.testing.assert_array_equal(windows, [[1, -0.25], [2, -0.5]])
    assert (rows, left_over) == ([(1, 1), (2, 2)], 0)


def test_quotes_and_windows_line_ends_are_read(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes(b'"a","b"\r\n"1","2e-1"\r\n+3,-4.5\r\n5,6')
    windows, _, _ = read_windows(path, SHAPE)
    np.testing.assert_array_equal(windows[0], np.float32([[1, 3, 5], [0.2, -4.5, 6]]))


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("", ["has no readings", "one line of numbers"]),
        ("a,b\n", ["has no readings"]),
        ("1,2\n3,4\n", ["has 2 rows"]),
        ("a,b\n1,2\n3,x\n5,6\n", ["line 3, column 2", "'x'"]),
        ("a,b\nc,d\n1,2\n", ["line 2, column 1", "'c'"]),
        ("1,b\n", ["line 1, column 2", "'b'"]),
        ("1,2\n3,\n5,6\n", ["line 2, column 2", "''"]),
        ("1,2\n3,nan\n5,6\n", ["line 2, column 2", "'nan'"]),
        ("1,2\n3,inf\n5,6\n", ["line 2, column 2", "'inf'"]),
        ("1,2\n3,1e39\n5,6\n", ["line 2, column 2", "'1e39'"]),
        ("1,2\n3,4,5\n", ["line 2", "3 columns", "2 channels"]),
        ("t,a,b\n0,1,2\n", ["line 1", "3 columns", "2 channels", "no time"]),
        ("1;2\n3;4\n5;6\n", ["line 1", "1 column,", "commas"]),
        ('1,"2\n3,4\n', ["no CSV file"]),
    ],
)
def test_what_is_no_such_table_is_refused_by_line_and_column(tmp_path, text, parts):
    path = tmp_path / "a.csv"
    path.write_text(text)
    message = refusal(path)
    for part in parts:
        assert part in message, message


def test_bytes_of_another_encoding_a_missing_file_and_a_folder_are_refused(tmp_path):
    (tmp_path / "a.csv").write_bytes(b"\xff\xfe1\x00,\x002\x00")
    assert "UTF-8" in refusal(tmp_path / "a.csv")
    assert "No such file" in refusal(tmp_path / "absent.csv")
    assert "Is a directory" in refusal(tmp_path)


def test_a_model_of_images_and_an_impossible_stride_are_refused(tmp_path):
    path = write(tmp_path / "a.csv", table(6))
    assert "(1, 8, 8)" in refusal(path, (1, 8, 8))
    with pytest.raises(ExportError, match="stride = 0 must be at least 1"):
        read_windows(path, SHAPE, stride=0)
