"""Tables of numbers: nothing vanishes, nothing moves up, and every column is the one that its name says."""

import numpy as np
import pytest

from wash_fl.errors import ExportError
from wash_fl.export.table import read_table

INT64, UINT8 = np.dtype(np.int64), np.dtype(np.uint8)


def write(folder, text):
    path = folder / "a.csv"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def read(folder, text, channels, **options):
    return read_table(write(folder, text), channels, **options).tolist()


def refusal(folder, text, channels, **options):
    with pytest.raises(ExportError) as caught:
        read_table(write(folder, text), channels, **options)
    message = str(caught.value)
    assert len(message.splitlines()) == 1 and "a.csv, line " in message and message.endswith(".")
    return message


# A missing reading


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("a,b\n1,2\n,\n3,4\n", "line 3 has no reading in any column"),
        ("a,b\n1,2\n , \t\n3,4\n", "line 3 has no reading in any column"),
        ('a,b\n1,2\n"",""\n', "line 3 has no reading in any column"),
        ("a,b\n1,2\n3,4\n,\n,\n", "line 4 has no reading in any column"),
        ("a,b\n1,2\nNaN,nan\n", "line 3 has no reading in any column"),
        ("1,2\n3,\n", "line 2, column 2: a reading is missing ('')"),
        ("1,2\nNA,3\n", "line 2, column 1: a reading is missing ('NA')"),
        ("1,2\n-,3\n", "line 2, column 1: a reading is missing ('-')"),
    ],
)
def test_a_missing_reading_is_refused_with_its_line_and_never_skipped(tmp_path, text, where):
    assert where in refusal(tmp_path, text, 2)


@pytest.mark.parametrize("first", [",", "nan,nan", "NA,NA", " , ", "?,?"])
def test_a_first_line_of_missing_readings_is_not_names(tmp_path, first):
    assert "line 1 has no reading" in refusal(tmp_path, f"{first}\n1,2\n", 2)


@pytest.mark.parametrize(
    "text", ["1\n\n2\n", "a\n1\n \n2\n", '1\n""\n2\n', "\n1\n2\n", "a\n\n1\n2\n", "1\nNA\n"]
)
def test_a_blank_in_one_column_is_a_missing_reading_and_time_is_not_compressed(tmp_path, text):
    refusal(tmp_path, text, 1)


@pytest.mark.parametrize(
    "text",
    ["a,b\n1,2\n\n3,4\n", "1,2\n  \n3,4\n", "a,b\r\r\n1,2\r\r\n3,4\r\r\n", "a,b\n\n1,2\n", "\n\n1,2\n"],
)
def test_a_blank_line_above_a_reading_is_refused_by_its_number(tmp_path, text):
    assert "is blank" in refusal(tmp_path, text, 2)
    assert "line 2 is blank" in refusal(tmp_path, "1,2\n\n3,4\n", 2)


@pytest.mark.parametrize(
    "text",
    [
        "a,b\n1,2\n3,4\n\n\n  \n",
        "\n\na,b\n1,2\n3,4",
        "\ufeffa,b\n1,2\n3,4",
        "a,b\r\n1,2\r\n3,4\r\n",
        "a,b\r1,2\r3,4\r",
        '"a","b"\n"1", 2 \n3.0,4e0\n',
        "1,2\n3,4\n\n",
        "Na,K\n1,2\n3,4\n",
    ],
)
def test_blank_lines_outside_marks_quotes_and_any_line_ends_are_no_matter(tmp_path, text):
    assert read(tmp_path, text, 2) == [[1, 2], [3, 4]]


def test_blank_lines_below_a_single_column_are_no_readings(tmp_path):
    assert read(tmp_path, "0.5\n1.5\n\n\n", 1) == [[0.5], [1.5]]


# Not a table of numbers with commas


@pytest.mark.parametrize(
    ("text", "channels", "part"),
    [
        ("a;b\n1;2\n", 2, "semicolons"),
        ("1,5;2,5\n3,5;4,5\n", 2, "semicolons"),
        ("1,5;2,5\n3,5;4,5\n", 3, "semicolons"),
        ("a;b\n1;2\n", 1, "semicolons"),
        ("a\tb\n1\t2\n", 2, "tabs"),
        ("1 2\n3 4\n", 2, "spaces"),
        ('a,b\n"1,5",2\n', 2, "decimal point"),
        ('a,b\n"1,510",2\n', 2, "nothing between thousands"),
        ("a,b\n1'510,2\n", 2, "nothing between thousands"),
        ("a,b\n1_000,2\n", 2, "nothing between thousands"),
        ("a,b\n1,2,\n", 2, "comma at the line's end"),
        ("1,2,\n3,4,\n", 2, "comma at the line's end"),
        (",a,b\n0,1,2\n", 2, "to_csv(index=False)"),
        ("0,1.5,2.5\n1,3.5,4.5\n", 2, "no index"),
        ("a,b\n1,2\na,b\n3,4\n", 2, "line 3, column 1"),
        ("a,b\n1,inf\n", 2, "float32 can hold"),
    ],
)
def test_another_separator_number_or_width_is_refused_with_the_way_out(tmp_path, text, channels, part):
    assert part in refusal(tmp_path, text, channels)


def test_names_that_python_alone_reads_as_numbers_are_names(tmp_path):
    assert read(tmp_path, "2020_01,2020_02\n1,2\n", 2) == [[1, 2]]


# A header of numbers


@pytest.mark.parametrize(
    "first",
    ["0,1,2,3", "1,2,3,4", ' 0,"1",2,3', "400,410,420,430,440,450,460", "0.1,0.2,0.3,0.4,0.5,0.6"],
)
def test_a_first_line_that_may_number_the_columns_is_refused_and_names_above_it_decide(tmp_path, first):
    width = first.count(",") + 1
    readings = ["7.25", "1", "9.5", "3", "5", "8", "2"][:width]
    below = f"{first}\n{','.join(readings)}\n"
    message = refusal(tmp_path, below, width)
    assert "line 1" in message and "number the columns" in message
    names = ",".join("abcdefg"[:width])
    assert len(read(tmp_path, f"{names}\n{below}", width)) == 2
    assert read(tmp_path, below.split("\n", 1)[1], width) == [[float(each) for each in readings]]


@pytest.mark.parametrize("first", ["0,2,4,6", "4,3,2,1", "0,1,2,4", "0.0,1.0,2.0,3.0"])
def test_other_first_lines_of_numbers_are_readings(tmp_path, first):
    assert len(read(tmp_path, f"{first}\n7.25,1,9.5,3\n", 4)) == 2


def test_one_or_two_small_numbers_are_refused_only_where_nothing_below_is_like_them(tmp_path):
    assert "line 1 (0)" in refusal(tmp_path, "0\n0.25\n0.5\n", 1)
    assert "line 1 (0, 1)" in refusal(tmp_path, "0,1\n0.25,3\n0.5,1\n", 2)
    assert read(tmp_path, "0\n0.25\n1\n", 1) == [[0], [0.25], [1]]
    assert read(tmp_path, "1,2\n5,6\n", 2) == [[1, 2], [5, 6]]
    assert read(tmp_path, "1,2\n", 2) == [[1, 2]]


# Names

COLUMNS = ("Alcohol", "ash", "Hue (1)")


@pytest.mark.parametrize(
    ("header", "rows"),
    [
        ("Alcohol,ash,Hue (1)", "1,2,3\n4,5,6"),
        ("ash,Hue (1),Alcohol", "2,3,1\n5,6,4"),
        (' HUE (1) ,"alcohol",Ash', "3,1,2\n6,4,5"),
        (",ash,time,Alcohol,Hue (1)", "0,2,12:30,1,3\n1,5,,4,6"),
        ("ash,Alcohol,Hue (1),", "2,1,3,\n5,4,6,"),
    ],
)
def test_columns_are_taken_by_their_names_in_any_order_and_others_are_left(tmp_path, header, rows):
    assert read(tmp_path, f"{header}\n{rows}\n", 3, columns=COLUMNS) == [[1, 2, 3], [4, 5, 6]]


def test_names_that_are_numbers_are_names_where_the_model_has_them(tmp_path):
    assert read(tmp_path, "2,0,1\n5,3,4\n", 3, columns=("0", "1", "2")) == [[3, 4, 5]]


def test_a_misspelt_name_among_names_that_are_numbers_is_named(tmp_path):
    message = refusal(tmp_path, "450,451,alcohl\n1,2,3\n", 3, columns=("450", "451", "alcohol"))
    assert "line 1 lacks the model's 'alcohol', and names 'alcohl'" in message


def test_names_are_the_same_however_their_accents_are_encoded(tmp_path):
    assert read(tmp_path, "breite,ho\u0308he\n1,2\n", 2, columns=("h\u00f6he", "breite")) == [[2, 1]]


def test_capitals_count_where_they_tell_columns_apart(tmp_path):
    assert read(tmp_path, "t,T \n1,2\n", 2, columns=("T", "t")) == [[2, 1]]
    assert "lacks the model's 't'" in refusal(tmp_path, "T,x\n1,2\n", 2, columns=("T", "t"))


@pytest.mark.parametrize(
    ("header", "parts"),
    [
        ("alcohol,ash,colour", ["lacks the model's 'Hue (1)'", "names 'colour'"]),
        ("alcohol,ash", ["lacks the model's 'Hue (1)'", "any order"]),
        ("a,b,c", ["lacks the model's 'Alcohol', 'ash', 'Hue (1)'", "names 'a', 'b', 'c'"]),
        ("alcohol,ash,ash,Hue (1)", ["more than one 'ash'"]),
    ],
)
def test_names_that_are_not_the_models_are_refused_with_which(tmp_path, header, parts):
    message = refusal(tmp_path, f"{header}\n1,2,3\n", 3, columns=COLUMNS)
    for part in parts:
        assert part in message, message


def test_a_table_without_names_has_the_models_columns_and_no_others(tmp_path):
    assert read(tmp_path, "9,1,3\n", 3, columns=COLUMNS) == [[9, 1, 3]]
    assert "name them in the first line" in refusal(tmp_path, "0,9,1,3\n", 3, columns=COLUMNS)


def test_a_table_with_more_columns_that_is_not_whole_is_refused(tmp_path):
    header = "time,ash,Alcohol,Hue (1)\n"
    assert "the first has 4" in refusal(tmp_path, f"{header}0,1,2\n", 3, columns=COLUMNS)
    assert "line 3, column 2: a reading is missing" in refusal(
        tmp_path, f"{header}0,1,2,3\n1,,2,3\n", 3, columns=COLUMNS
    )


def test_where_nobody_has_named_the_columns_any_names_of_the_width_pass(tmp_path):
    assert read(tmp_path, "x,y,z\n1,2,3\n", 3) == [[1, 2, 3]]


# Whole numbers


@pytest.mark.parametrize("text", ["3,4\n-5,6\n", "a,b\n3, 4\n-5,+6\n", "3.0,4.\n-5,6e0\n"])
def test_whole_numbers_are_read_as_such_however_they_are_written(tmp_path, text):
    table = read_table(write(tmp_path, text), 2, dtype=INT64)
    assert table.dtype == np.int64 and table.tolist() == [[3, 4], [-5, 6]]


def test_whole_numbers_beyond_what_a_float_tells_apart_are_exact(tmp_path):
    assert read(tmp_path, f"{2**53 + 1}\n", 1, dtype=INT64) == [[2**53 + 1]]
    assert "int64 can hold" in refusal(tmp_path, "9007199254740994.0\n", 1, dtype=INT64)


@pytest.mark.parametrize(
    ("cell", "dtype"),
    [("3.5", INT64), ("1e30", INT64), (str(2**63), INT64), ("256", UINT8), ("-1", UINT8), ("1_0", INT64)],
)
def test_what_a_type_of_whole_numbers_cannot_hold_is_refused(tmp_path, cell, dtype):
    message = refusal(tmp_path, f"1,{cell}\n", 2, dtype=dtype)
    assert f"line 1, column 2: '{cell}' is not a whole number that {dtype} can hold" in message


def test_missing_tokens_are_refused_like_readings(tmp_path):
    assert "a reading is missing" in refusal(tmp_path, "1,2\n3,\n", 2, dtype=INT64)
    assert "no reading" in refusal(tmp_path, "1,2\n,\n", 2, dtype=INT64)
