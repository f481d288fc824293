"""The keys by which a SuperLink knows its SuperNodes: OpenSSH, ECDSA on P-384, as Flower takes them."""

import re
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_ssh_public_key,
)

from wash_fl.deploy.new_files import CredentialsError, refuse_existing, write_new

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def make_node_key(folder: Path, name: str) -> tuple[Path, Path]:
    """Make the key pair by which a SuperNode is known: ``name`` and ``name.pub``.

    Parameters
    ----------
    folder : Path
        Where to; made if it does not exist.
    name : str
        Of the device; the file's name.

    Returns
    -------
    tuple of Path
        The private key, which stays on the device, and the public key, which is registered on the server.

    Raises
    ------
    CredentialsError
        If the name is no file name, or a file of that name exists.
    """
    if not _NAME.fullmatch(name) or name.endswith(".pub"):
        raise CredentialsError(
            f"the key's name {name!r} is not allowed: use 1 to 64 letters, digits, dots, dashes and "
            "underscores, a letter or digit first, without .pub at the end."
        )
    private, public = folder / name, folder / f"{name}.pub"
    refuse_existing(private, public)
    secret = ec.generate_private_key(ec.SECP384R1())
    openssh = secret.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
    write_new(private, openssh, private=True)
    line = secret.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
    write_new(public, line + f" {name}\n".encode(), private=False)
    return private, public


def check_public_key(path: Path) -> None:
    """Check that a file is a public key that a SuperLink registers.

    Raises
    ------
    CredentialsError
        If it is not; a private key is named as such.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise CredentialsError(f"cannot read the public key {path}: {error.strerror}.") from error
    if b"PRIVATE KEY" in content:
        raise CredentialsError(f"{path} is a private key, which stays on its device: give {path.name}.pub.")
    try:
        key = load_ssh_public_key(content)
    except (ValueError, TypeError) as error:
        raise CredentialsError(
            f"{path} is not an OpenSSH public key: make one with `wash-fl fleet key`, and give the .pub file."
        ) from error
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise CredentialsError(
            f"{path} is not an ECDSA key, and Flower takes no other: make one with `wash-fl fleet key`."
        )
