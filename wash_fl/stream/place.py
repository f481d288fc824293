"""Where the stream plane's server listens, and how its members find and trust it.

The ServerApp's machine says so in its environment; with nothing set, members on the same machine find it.
"""

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from wash_fl.errors import ConfigError

LISTEN: Final = "WASH_FL_STREAM_LISTEN"
ADDRESS: Final = "WASH_FL_STREAM_ADDRESS"
CERTIFICATE: Final = "WASH_FL_STREAM_CERTIFICATE"
KEY: Final = "WASH_FL_STREAM_KEY"
AUTHORITY: Final = "WASH_FL_STREAM_AUTHORITY"

_LOOPBACK: Final = "127.0.0.1:0"


@dataclass(frozen=True)
class Place:
    """Where to serve streams.

    Attributes
    ----------
    listen : str
        Host and port to listen on; port 0 takes a free one.
    address : str
        Host and port under which the members find it; empty: where it listens.
    certificate, key : bytes
        The server's certificate chain and its private key, PEM; empty: no TLS, on loopback only.
    authority : bytes
        The certificate that members are to trust, PEM.
    """

    listen: str = _LOOPBACK
    address: str = ""
    certificate: bytes = b""
    key: bytes = b""
    authority: bytes = b""

    def __post_init__(self) -> None:
        host, _ = split(self.listen, LISTEN)
        if self.address:
            split(self.address, ADDRESS)
        if bool(self.certificate) != bool(self.key) or bool(self.certificate) != bool(self.authority):
            raise ConfigError(
                f"{CERTIFICATE}, {KEY} and {AUTHORITY} belong together: set all, or none on one machine."
            )
        if not self.certificate and not _is_loopback(host):
            raise ConfigError(
                f"{LISTEN} = {self.listen} without TLS: slices and tokens would travel in the clear. Set "
                f"{CERTIFICATE}, {KEY} and {AUTHORITY}; only loopback does without."
            )

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> "Place":
        """Read the place from environment variables.

        Raises
        ------
        ConfigError
            If they contradict one another, or a file cannot be read.
        """
        files = {name: environment.get(name, "") for name in (CERTIFICATE, KEY, AUTHORITY)}
        listen = environment.get(LISTEN, "") or environment.get(ADDRESS, "") or _LOOPBACK
        return cls(
            listen=listen,
            address=environment.get(ADDRESS, ""),
            certificate=_content(files[CERTIFICATE], CERTIFICATE),
            key=_content(files[KEY], KEY),
            authority=_content(files[AUTHORITY], AUTHORITY),
        )


def split(address: str, name: str) -> tuple[str, int]:
    """Return host and port of an address.

    Raises
    ------
    ConfigError
        If it is none.
    """
    host, colon, port = address.rpartition(":")
    if not (host and colon and port.isdecimal() and int(port) <= 65535):
        raise ConfigError(f"{name} = {address!r}: write host:port, such as 192.168.1.10:9100.")
    return host.strip("[]"), int(port)


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _content(path: str, name: str) -> bytes:
    if not path:
        return b""
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise ConfigError(f"{name} = {path!r} cannot be read: {error.strerror}.") from error
