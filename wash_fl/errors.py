"""What can go wrong for a reason the user can mend.

Every message says what was given, what is allowed and what to do, on one line: the command line
prints it as it is and exits with a status other than 0.
"""

from functools import lru_cache
from pathlib import Path
from traceback import walk_tb

INTERRUPTED = 130
"""Status of a command that Ctrl-C has ended."""


def reason_of(error: Exception, most: int | None = None) -> str:
    """Return what another library's error says, on one line and without its full stop, for a message of ours.

    Parameters
    ----------
    error : Exception
        What was raised; its type's name is the reason if it says nothing.
    most : int or None
        How many characters at most; None for all.
    """
    return " ".join(str(error).split())[:most].rstrip(".") or type(error).__name__


LONGEST = 300
"""Characters of what was raised that are said: some libraries fill a screen."""


def described(error: BaseException, *, whole: bool = False) -> str:
    """Return what code that is not ours has raised, on one line: its type, what it says, and where.

    Such as ``ValueError: Target 10 is out of bounds (my_task.py:31)``.

    Parameters
    ----------
    error : BaseException
        What was raised.
    whole : bool
        Say all of its lines, and not only the first.
    """
    try:
        # Python's own words of a file that is no Python name the place, which comes anyway.
        text = (error.msg or "") if isinstance(error, SyntaxError) else str(error)
    except Exception:  # whatever an exception of somebody's own does when it is asked what it says
        text = ""
    lines = text.strip().splitlines()
    said = " ".join(" ".join(lines if whole else lines[:1]).split())[:LONGEST].rstrip(".")
    line = user_line(error)
    return type(error).__name__ + (f": {said}" if said else "") + (f" ({line})" if line else "")


def user_line(error: BaseException) -> str:
    """Return the file and line of the user's code at which an error arose, such as ``my_task.py:12``.

    It is the innermost frame that is neither Python's, an installed package's, nor ours; empty if there is
    none. Of a file that is no Python it is where reading it ended.
    """
    if isinstance(error, SyntaxError) and error.filename and error.lineno:
        return f"{Path(error.filename).name}:{error.lineno}"
    for frame, line in reversed(list(walk_tb(error.__traceback__))):
        name = frame.f_code.co_filename
        ours = Path(name).is_relative_to(_OURS) or frame.f_globals.get("__name__") in _OUR_APPS
        if not ours and not name.startswith("<"):
            path = Path(name).resolve()
            if not any(path.is_relative_to(each) for each in _not_the_users()):
                return f"{path.name}:{line}"
    return ""


_OUR_APPS = ("clients.client_app", "server.server_app")
"""Modules of ours that Flower loads from a copy beside no package."""
_OURS = Path(__file__).resolve().parent


@lru_cache(maxsize=1)
def _not_the_users() -> tuple[Path, ...]:
    """Return the folders of Python's own modules and of installed packages."""
    import sysconfig  # takes longer than a device's answer, and is seldom needed

    names = ("stdlib", "platstdlib", "purelib", "platlib")
    return tuple(Path(sysconfig.get_path(name)).resolve() for name in names)


class WashError(ValueError):
    """Base of every error this package raises on purpose."""


class ConfigError(WashError):
    """An option is unknown, of the wrong type, or outside what is allowed."""


class LayoutError(WashError):
    """The parameters of a model cannot be exchanged, or two models differ."""


class ExchangeError(WashError):
    """An exchange was asked for something its protocol does not allow."""


class NotJoinedError(ExchangeError):
    """A member holds no state of the run that it could go on with, and is to be started.

    Attributes
    ----------
    fell_back : bool
        It holds one, from before the last exchange in which it took part.
    """

    def __init__(self, message: str, *, fell_back: bool = False) -> None:
        super().__init__(message)
        self.fell_back = fell_back


class UnreachedError(ExchangeError):
    """A member waits for an answer on its stream, and does not reach the server there."""


class UnmetError(ExchangeError):
    """A request is of a server that is not the one that a member met last."""


class StateError(WashError):
    """A member's state on disk is missing, damaged, or of another run."""


class DataError(WashError):
    """A data set is missing or does not fit the task."""


class ExportError(WashError):
    """An exported model does not answer as the model it was made from."""


class RunError(WashError):
    """A run cannot start, go on, or be read back."""
