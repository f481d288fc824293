"""What code of the user's raises, as one line that names the file and the line."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import ParamSpec, TypeVar

from wash_fl.errors import DataError, WashError, described, user_line

P = ParamSpec("P")
R = TypeVar("R")


@contextmanager
def user_code(what: str, kind: type[WashError] = DataError) -> Iterator[None]:
    """Turn whatever is raised within into an error of ours, which says where; ours go through as they are.

    Parameters
    ----------
    what : str
        What is called, to begin the message with.
    kind : type
        Which error.

    Raises
    ------
    WashError
        Of this kind; :class:`DataError` if a module is missing.
    """
    try:
        yield
    except WashError:
        raise
    except ModuleNotFoundError as error:
        raise DataError(
            f"{what} needs the module {error.name!r}, which is not installed{_at(error)}: pip install it."
        ) from error
    except SystemExit as error:
        raise kind(
            f"{what} ends the program{_at(error)}: put what a script does, and what reads the command line, "
            "below if __name__ == '__main__'."
        ) from error
    except Exception as error:
        raise kind(f"{what} raises {described(error, whole=True)}: mend that.") from error


def guarded(function: Callable[P, R], what: str) -> Callable[P, R]:
    """Return a function of the user's whose errors are ours; see :func:`user_code`."""

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        with user_code(what):
            return function(*args, **kwargs)

    return call


def _at(error: BaseException) -> str:
    line = user_line(error)
    return f" ({line})" if line else ""
