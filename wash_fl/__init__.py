"""WASH for Flower: train an ensemble on a fleet of edge devices, ship it as one small model."""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from wash_fl.config import ExchangeConfig, RunConfig
    from wash_fl.member.member import Member
    from wash_fl.member.parameters import model_layout
    from wash_fl.planes.round import Participant, Round, participant
    from wash_fl.strategy import WashStrategy

__all__ = [
    "ExchangeConfig",
    "Member",
    "Participant",
    "Round",
    "RunConfig",
    "WashStrategy",
    "model_layout",
    "participant",
]

_HOMES = {
    "ExchangeConfig": "wash_fl.config",
    "RunConfig": "wash_fl.config",
    "Member": "wash_fl.member.member",
    "model_layout": "wash_fl.member.parameters",
    "Participant": "wash_fl.planes.round",
    "Round": "wash_fl.planes.round",
    "participant": "wash_fl.planes.round",
    "WashStrategy": "wash_fl.strategy",
}


def __getattr__(name: str) -> Any:
    # Looked up only when asked for: a device that only infers has neither torch nor Flower.
    if name in _HOMES:
        from importlib import import_module

        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
