"""Whether the SuperLink can be reached: its name, its port, its certificate, and what it answers."""

import http.client
import socket
import ssl
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, Final

from wash_fl.checks.finding import Finding
from wash_fl.errors import ConfigError

SECONDS: Final = 10.0
"""To wait for a connection, and for each answer."""

# OpenSSL's numbers, which Python has no names for.
_EXPIRED, _NOT_YET = 10, 9
_STRANGERS: Final = (2, 18, 19, 20, 21)  # no issuer to be found, or one that signed itself
_OTHER_NAME: Final = (62, 64)
_NO_CHECK_TIME: Final = 0x200000


@dataclass(frozen=True)
class Address:
    """Where a SuperLink listens."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> "Address":
        """Read ``HOST:PORT``; an IPv6 address is in brackets.

        Raises
        ------
        ConfigError
            If it is anything else.
        """
        host, _, port = text.rpartition(":")
        brackets = host.startswith("[") and host.endswith("]")
        bare = host[1:-1] if brackets else host
        if (
            not bare
            or (":" in bare) != brackets
            or any(each in bare for each in "/@ ")
            or not (port.isascii() and port.isdecimal())
            or not 1 <= int(port) <= 65535
        ):
            raise ConfigError(
                f"superlink = {text!r} is not allowed: it must be HOST:PORT, like fleet.example.org:8443, "
                "without https:// and without a path."
            )
        return cls(bare, int(port))

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True)
class Reachability:
    """What was learned of a SuperLink.

    Attributes
    ----------
    findings : tuple of Finding
        On the connection, the certificate, and the answer, as far as it went.
    ahead : float or None
        By how many seconds this machine's clock is ahead of the server's (negative: behind), to a second or
        two; None if the server did not say its time.
    """

    findings: tuple[Finding, ...]
    ahead: float | None = None


def reach(address: Address, authority: Path | None) -> Reachability:
    """Connect, as a SuperNode would, and ask for the SuperLink's health.

    Parameters
    ----------
    address : Address
        The SuperLink, or the proxy before it.
    authority : Path, optional
        The certificate of the fleet's authority; by default, those that the system trusts.
    """
    unreachable = _connect(address)
    if unreachable is not None:
        return Reachability((unreachable,))
    connected = Finding("connection", "ok", f"{address} accepts connections")
    try:
        context = ssl.create_default_context(cafile=None if authority is None else str(authority))
    except OSError as error:  # a file that is no certificate raises ssl.SSLError, which is one
        return Reachability((connected, _bad_authority(authority, error)))
    try:
        answer, ahead, certificate = _ask(address, context)
    except ssl.SSLCertVerificationError as error:
        trusted, ahead = _distrusted(address, authority, context, error)
        return Reachability((connected, trusted), ahead)
    except (OSError, http.client.HTTPException) as error:
        return Reachability((connected, _no_tls(address, error)))
    until = datetime.fromtimestamp(ssl.cert_time_to_seconds(certificate["notAfter"]), UTC)
    return Reachability((connected, _validity(until), _answered(address, answer)), ahead)


def _connect(address: Address) -> Finding | None:
    try:
        socket.create_connection((address.host, address.port), SECONDS).close()
    except socket.gaierror:
        problem, advice = (
            f"there is no host {address.host!r}, as far as this machine can find out",
            "check the name and the network's DNS; or give the server's address instead of its name (its "
            "certificate must then have that address: wash-fl fleet certificates, with --host)",
        )
    except ConnectionRefusedError:
        problem, advice = (
            f"{address} refuses the connection: the machine is there, and nothing listens on that port",
            "check the port; start the SuperLink (systemctl status wash-fl-superlink); it listens on "
            "127.0.0.1 only until SUPERLINK_HOST in superlink.env says otherwise: docs/fleet.md, step 5",
        )
    except TimeoutError:
        problem, advice = (
            f"{address} did not answer within {SECONDS:g} s",
            "check that the server is on and in this network; a firewall that drops packets looks like this: "
            "open the port for this device",
        )
    except OSError as error:
        problem, advice = (
            f"{address} cannot be reached: {error.strerror or error}",
            "check this machine's network (ip address, ip route) and the server's address",
        )
    else:
        return None
    return Finding("connection", "problem", problem, advice)


def _ask(address: Address, context: ssl.SSLContext) -> tuple[int, float | None, dict[str, Any]]:
    """Return the status of the answer, by how much our clock is ahead, and the server's certificate."""
    connection = http.client.HTTPSConnection(address.host, address.port, timeout=SECONDS, context=context)
    try:
        connection.connect()
        certificate = connection.sock.getpeercert()
        sent_at = datetime.now(UTC).timestamp()
        connection.request("GET", "/health")
        response = connection.getresponse()
        answered_at = datetime.now(UTC).timestamp()
        response.read(1000)
        return (
            response.status,
            _ahead(response.headers["Date"], (sent_at + answered_at) / 2),
            certificate or {},
        )
    finally:
        connection.close()


def _ahead(date: str | None, now: float) -> float | None:
    with suppress(TypeError, ValueError):
        if date is not None:
            # A server says whole seconds, so it is half a second later there on average.
            return now - parsedate_to_datetime(date).timestamp() - 0.5
    return None


def _bad_authority(authority: Path | None, error: OSError) -> Finding:
    reason = "is not a certificate in PEM format"
    if not isinstance(error, ssl.SSLError):
        reason = f"cannot be read: {error.strerror}"
    return Finding(
        "certificate",
        "problem",
        f"{authority} {reason}",
        "copy ca.crt from the server, where wash-fl fleet certificates made it, to the device; this user "
        "must be able to read it",
    )


def _distrusted(
    address: Address, authority: Path | None, context: ssl.SSLContext, error: ssl.SSLCertVerificationError
) -> tuple[Finding, float | None]:
    """Say why the certificate is not trusted; a wrong date may be this machine's."""
    code, ahead = error.verify_code, None
    if code in (_EXPIRED, _NOT_YET):
        problem, advice, ahead = _out_of_date(address, context, code)
    elif code in _OTHER_NAME:
        problem, advice = (
            f"the server's certificate is not for {address.host!r}",
            "use a name or address that it has, or make one for this host, too: docs/fleet.md, step 2",
        )
    elif code in _STRANGERS and authority is None:
        problem, advice = (
            "the server's certificate is of an authority that this system does not know",
            "give the fleet's own: --root-certificates ca.crt, copied from the server",
        )
    elif code in _STRANGERS:
        problem, advice = (
            f"the server's certificate was not signed by {authority}",
            "copy the ca.crt that belongs to this server; if it is the right one, something else answers at "
            f"{address}",
        )
    else:
        problem, advice = (
            f"the server's certificate is not trusted: {error.verify_message}",
            "make the server's certificate anew: docs/fleet.md, step 2",
        )
    return Finding("certificate", "problem", problem, advice), ahead


def _out_of_date(address: Address, context: ssl.SSLContext, code: int) -> tuple[str, str, float | None]:
    # Everything but the time is checked once more, to read from when until when the certificate is valid, and
    # what time the server has.
    context.verify_flags |= _NO_CHECK_TIME
    certificate: dict[str, Any] = {}
    ahead = None
    with suppress(OSError, http.client.HTTPException):
        _, ahead, certificate = _ask(address, context)
    window = " to ".join(
        f"{datetime.fromtimestamp(ssl.cert_time_to_seconds(certificate[name]), UTC):%Y-%m-%d}"
        for name in ("notBefore", "notAfter")
        if name in certificate
    )
    when = f"it is {datetime.now(UTC):%Y-%m-%d %H:%M} UTC here" + (
        f", and valid are {window}" if window else ""
    )
    state = "has expired" if code == _EXPIRED else "is not valid yet"
    if ahead is not None and abs(ahead) > 86_400:
        return (
            f"by this machine's clock the server's certificate {state} ({when}); the server has another time",
            "set this machine's clock: timedatectl set-ntp true, and wait until timedatectl says that it is "
            "synchronized",
            ahead,
        )
    return (
        f"the server's certificate, or its authority's, {state} ({when})",
        "check the date here (timedatectl); if it is right, renew the certificate on the server: "
        "docs/fleet.md, step 2",
        ahead,
    )


def _no_tls(address: Address, error: Exception) -> Finding:
    if _speaks_plain_http(address):
        return Finding(
            "certificate",
            "problem",
            f"{address} answers without TLS",
            "start the SuperLink with its certificate, as its unit file does (docs/fleet.md, step 3); or "
            "this is the port of something else",
        )
    reason = getattr(error, "reason", "") or getattr(error, "strerror", "") or type(error).__name__
    return Finding(
        "certificate",
        "problem",
        f"{address} accepts connections, and does not answer as a SuperLink with TLS does ({reason})",
        "check the port; look into the SuperLink's journal (journalctl -u wash-fl-superlink)",
    )


def _speaks_plain_http(address: Address) -> bool:
    connection = http.client.HTTPConnection(address.host, address.port, timeout=SECONDS)
    with suppress(OSError, http.client.HTTPException):
        connection.request("GET", "/health")
        connection.getresponse()
        return True
    connection.close()
    return False


def _validity(until: datetime) -> Finding:
    days = (until - datetime.now(UTC)).days
    if days < 30:
        return Finding(
            "certificate",
            "warning",
            f"the server's certificate is trusted, for {days} more days",
            "renew it on the server: docs/fleet.md, step 2",
        )
    return Finding("certificate", "ok", f"the server's certificate is trusted, until {until:%Y-%m-%d}")


def _answered(address: Address, status: int) -> Finding:
    if status == 200:
        return Finding("SuperLink", "ok", "it answers, and says that it is well")
    if status == 403:
        return Finding(
            "SuperLink",
            "ok",
            "a proxy answers, which lets only devices' messages through (server/nginx.conf)",
        )
    if status in (502, 503, 504):
        return Finding(
            "SuperLink",
            "problem",
            f"a proxy answers, and the SuperLink behind it does not (status {status})",
            "start the SuperLink: systemctl status wash-fl-superlink, on the server",
        )
    return Finding(
        "SuperLink",
        "warning",
        f"a web server answers at {address}, and hardly a SuperLink: /health has status {status}",
        "check the port: the SuperLink's is 8443 in superlink.env, that of the proxy 9443",
    )
