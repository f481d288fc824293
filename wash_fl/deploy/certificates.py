"""The certificates by which devices know their server: an authority of one's own, and what it signs."""

import ipaddress
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from wash_fl.deploy.new_files import CredentialsError, refuse_existing, write_new

AUTHORITY, AUTHORITY_KEY = "ca.crt", "ca.key"
CERTIFICATE, KEY = "server.pem", "server.key"

AUTHORITY_DAYS, SERVER_DAYS = 3650, 825

ALWAYS = ("localhost", "127.0.0.1", "::1")
"""Names that every server's certificate has: the SuperLink's own processes reach it under them."""

SKEW = timedelta(days=1)
"""Certificates begin so long ago, for devices whose clock is behind."""

_LABEL = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)")


@dataclass(frozen=True)
class Certificate:
    """What a certificate says.

    Attributes
    ----------
    path : Path
        Its file.
    hosts : tuple of str
        DNS names and IP addresses that it is for; none for an authority.
    until : datetime
        When it expires, in UTC.
    """

    path: Path
    hosts: tuple[str, ...]
    until: datetime

    @property
    def days_left(self) -> float:
        """Days until it expires; negative once it has."""
        return (self.until - datetime.now(UTC)) / timedelta(days=1)


def make_authority(folder: Path, *, days: int = AUTHORITY_DAYS) -> Certificate:
    """Make ``ca.crt`` and ``ca.key``, or return the one that is there.

    Parameters
    ----------
    folder : Path
        Where to; made if it does not exist.
    days : int
        How long it is valid.

    Raises
    ------
    CredentialsError
        If one of the two is there without the other, or the certificate is damaged or has expired.
    """
    certificate, key = folder / AUTHORITY, folder / AUTHORITY_KEY
    if certificate.exists() and key.exists():
        authority = read_certificate(certificate)
        if authority.days_left <= 0:
            raise CredentialsError(
                f"{certificate} expired on {authority.until:%Y-%m-%d}: delete it and {key} to make a new "
                "authority, whose certificate then goes to every device."
            )
        return authority
    refuse_existing(certificate, key)
    secret = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "wash-fl fleet authority")])
    signed_certificate = (
        _builder(name, name, secret.public_key(), days)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage("key_cert_sign", "crl_sign"), critical=True)
        .sign(secret, hashes.SHA256())
    )
    write_new(key, _pem(secret), private=True)
    write_new(certificate, signed_certificate.public_bytes(Encoding.PEM), private=False)
    return read_certificate(certificate)


def make_server_certificate(folder: Path, hosts: Iterable[str], *, days: int = SERVER_DAYS) -> Certificate:
    """Make ``server.pem`` and ``server.key``, signed by the authority in ``folder``.

    Parameters
    ----------
    folder : Path
        Holds the authority; see :func:`make_authority`.
    hosts : iterable of str
        DNS names and IP addresses under which devices reach the server. ``localhost`` is added.
    days : int
        How long it is valid, but not longer than the authority.

    Raises
    ------
    CredentialsError
        If a host is neither a name nor an address, a file exists, or the authority cannot be read.
    """
    names = _host_names([*hosts, *ALWAYS])
    certificate, key = folder / CERTIFICATE, folder / KEY
    refuse_existing(certificate, key)
    authority = _load_certificate(folder / AUTHORITY)
    try:
        signer = load_pem_private_key((folder / AUTHORITY_KEY).read_bytes(), None)
    except FileNotFoundError as error:
        raise CredentialsError(
            f"{folder} has no {AUTHORITY_KEY}: certificates are made where the authority's key is kept."
        ) from error
    except (ValueError, TypeError) as error:
        raise CredentialsError(
            f"{folder / AUTHORITY_KEY} is not a private key without a password."
        ) from error
    if not isinstance(signer, ec.EllipticCurvePrivateKey) or signer.public_key() != authority.public_key():
        raise CredentialsError(
            f"{folder / AUTHORITY_KEY} is not the key of {folder / AUTHORITY}: put the two that belong "
            "together there."
        )
    secret = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "wash-fl server")])
    signed_certificate = (
        _builder(name, authority.subject, secret.public_key(), days, latest=authority.not_valid_after_utc)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage("digital_signature"), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False
        )
        .sign(signer, hashes.SHA256())
    )
    write_new(key, _pem(secret), private=True)
    write_new(certificate, signed_certificate.public_bytes(Encoding.PEM), private=False)
    return read_certificate(certificate)


def read_certificate(path: Path) -> Certificate:
    """Read what a certificate says.

    Raises
    ------
    CredentialsError
        If there is none, or it is damaged.
    """
    certificate = _load_certificate(path)
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        hosts = [str(name.value) for name in names]
    except x509.ExtensionNotFound:
        hosts = []
    return Certificate(path, tuple(hosts), certificate.not_valid_after_utc)


def _load_certificate(path: Path) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(path.read_bytes())
    except OSError as error:
        raise CredentialsError(f"cannot read the certificate {path}: {error.strerror}.") from error
    except ValueError as error:
        raise CredentialsError(f"{path} is not a certificate in PEM format.") from error


def _host_names(hosts: Sequence[str]) -> list[x509.GeneralName]:
    names: dict[str, x509.GeneralName] = {}
    for host in hosts:
        try:
            address = ipaddress.ip_address(host)
        except ValueError:
            labels = host.split(".")
            if len(host) > 253 or not all(_LABEL.fullmatch(label) for label in labels) or _is_numbers(labels):
                raise CredentialsError(
                    f"the host {host!r} is neither a DNS name nor an IP address: give names like "
                    "fleet.example.org or 192.168.1.10, without https:// and without a port."
                ) from None
            names.setdefault(host.lower(), x509.DNSName(host.lower()))
        else:
            names.setdefault(str(address), x509.IPAddress(address))
    return list(names.values())


def _is_numbers(labels: Sequence[str]) -> bool:
    """Return whether these are an IPv4 address that is not one, like 192.168.1.256."""
    return all(label.isdigit() for label in labels)


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePublicKey,
    days: int,
    latest: datetime | None = None,
) -> x509.CertificateBuilder:
    if not 1 <= days <= AUTHORITY_DAYS:
        raise CredentialsError(f"days = {days} is not allowed: it must be from 1 to {AUTHORITY_DAYS}.")
    now = datetime.now(UTC)
    until = now + timedelta(days=days)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - SKEW)
        .not_valid_after(until if latest is None else min(until, latest))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _key_usage(*usages: str) -> x509.KeyUsage:
    names = (
        "digital_signature",
        "content_commitment",
        "key_encipherment",
        "data_encipherment",
        "key_agreement",
        "key_cert_sign",
        "crl_sign",
        "encipher_only",
        "decipher_only",
    )
    return x509.KeyUsage(**{name: name in usages for name in names})


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
