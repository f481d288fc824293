"""Moments at which a process may die, and its death."""


class Killed(BaseException):
    """Stands for SIGKILL or a power cut; a BaseException, for nothing may go on after it."""

    def __init__(self, moment: str) -> None:
        super().__init__(moment)
        self.moment = moment


class Fuse:
    """Kills at the n-th of the moments that a process passes."""

    def __init__(self) -> None:
        self._left: int | None = None

    def light(self, moments: int | None) -> None:
        """Die after so many more moments; None lets the process live."""
        self._left = moments

    def burn(self, moment: str) -> None:
        """Pass a moment, or die there.

        Raises
        ------
        Killed
            If this is the one.
        """
        if self._left is None:
            return
        if self._left == 0:
            self._left = None
            raise Killed(moment)
        self._left -= 1
