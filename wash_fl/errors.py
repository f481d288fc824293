"""What can go wrong for a reason the user can mend.

Every message says what was given, what is allowed and what to do, on one line: the command line
prints it as it is and exits with a status other than 0.
"""

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


class WashError(ValueError):
    """Base of every error this package raises on purpose."""


class ConfigError(WashError):
    """An option is unknown, of the wrong type, or outside what is allowed."""


class LayoutError(WashError):
    """The parameters of a model cannot be exchanged, or two models differ."""


class ExchangeError(WashError):
    """An exchange was asked for something its protocol does not allow."""


class StateError(WashError):
    """A member's state on disk is missing, damaged, or of another run."""


class DataError(WashError):
    """A data set is missing or does not fit the task."""


class ExportError(WashError):
    """An exported model does not answer as the model it was made from."""


class RunError(WashError):
    """A run cannot start, go on, or be read back."""
