"""Where an error of a user's own code is said to be."""

import json
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest

from wash_fl.errors import user_line


def _raised(path: Path) -> BaseException:
    spec = spec_from_file_location("somebodys", path)
    assert spec is not None and spec.loader is not None
    with pytest.raises(Exception) as caught:
        spec.loader.exec_module(module_from_spec(spec))
    return caught.value


def test_the_line_is_the_users_even_if_a_library_raises(tmp_path: Path) -> None:
    path = tmp_path / "my_task.py"
    path.write_text("import json\n\n\ndef read():\n    return json.loads('{')\n\n\nread()\n")
    assert user_line(_raised(path)) == "my_task.py:5"


def test_a_syntax_error_is_where_the_file_is_no_python(tmp_path: Path) -> None:
    path = tmp_path / "my_task.py"
    path.write_text("CLASSES = ('a', 'b')\nINPUT_SHAPE = (3,\n")
    assert user_line(_raised(path)) == "my_task.py:2"


def test_an_error_that_is_not_of_the_users_code_has_no_line() -> None:
    try:
        exec(compile("json.loads('{')", "<string>", "exec"), {"json": json, "sys": sys})
    except ValueError as error:
        assert user_line(error.with_traceback(error.__traceback__.tb_next)) == ""  # type: ignore[union-attr]


def test_the_app_that_flower_loads_is_ours_wherever_its_copy_is(tmp_path: Path) -> None:
    path = tmp_path / "client_app.py"
    path.write_text("def train(_):\n    raise ValueError\n")
    for name, line in (("clients.client_app", ""), ("my_app.client_app", "client_app.py:2")):
        spec = spec_from_file_location(name, path)
        assert spec is not None and spec.loader is not None
        module = module_from_spec(spec)
        spec.loader.exec_module(module)
        try:
            module.train(1)
        except ValueError as error:
            assert user_line(error.with_traceback(error.__traceback__.tb_next)) == line  # type: ignore[union-attr]
