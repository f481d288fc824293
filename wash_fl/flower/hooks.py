"""What Flower's Strategy asks for, and WASH has no use for."""

from collections.abc import Iterable
from typing import NoReturn

from flwr.app import ArrayRecord, ConfigRecord, Message
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy


class NoHooks(Strategy):
    """A strategy that is started, and whose rounds are nobody else's to configure.

    Flower's own ``start`` sends a model to all clients, and calls four hooks in each round. Here every member
    has a model of its own, so that none of the four has anything to do.
    """

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> list[Message]:
        """Refuse to be called."""
        _refuse("configure_train")

    def aggregate_train(self, server_round: int, replies: Iterable[Message]) -> NoReturn:
        """Refuse to be called."""
        _refuse("aggregate_train")

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> list[Message]:
        """Refuse to be called."""
        _refuse("configure_evaluate")

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> NoReturn:
        """Refuse to be called."""
        _refuse("aggregate_evaluate")


def _refuse(hook: str) -> NoReturn:
    raise NotImplementedError(
        f"WashStrategy has no use for {hook}(): each member has a model of its own. Call start()."
    )
