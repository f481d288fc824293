"""WASH for Flower: train an ensemble on a fleet of edge devices, ship it as one small model."""

__version__ = "0.1.0"

TYPE_CHECKING = False
"""Not typing's, whose import would be most of this one's time: the command line is to be there at once."""

if TYPE_CHECKING:
    from typing import Any

    from wash_fl.config import ExchangeConfig, RunConfig
    from wash_fl.flower.client import Participant, Round, participant
    from wash_fl.flower.strategy import WashStrategy
    from wash_fl.member.member import Member
    from wash_fl.member.parameters import model_layout

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
    "Participant": "wash_fl.flower.client",
    "Round": "wash_fl.flower.client",
    "participant": "wash_fl.flower.client",
    "WashStrategy": "wash_fl.flower.strategy",
}


def __getattr__(name: str) -> "Any":
    # Looked up only when asked for: a device that only infers has neither torch nor Flower.
    if name in _HOMES:
        from importlib import import_module

        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
