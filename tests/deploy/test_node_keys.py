"""Keys of SuperNodes that Flower takes, and errors for what it would not."""

import os
import stat
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.hazmat.primitives.serialization.ssh import load_ssh_private_key
from flwr.cli.supernode.register import try_load_public_key
from flwr.supercore.primitives.asymmetric import public_key_to_bytes

from wash_fl.deploy.new_files import CredentialsError, write_new
from wash_fl.deploy.node_keys import check_public_key, make_node_key


def test_flower_takes_both_halves_and_they_belong_together(tmp_path):
    private, public = make_node_key(tmp_path, "pi-0")
    # As flower-supernode and `flwr supernode register` read them.
    secret = load_ssh_private_key(private.read_bytes(), None)
    assert isinstance(secret, ec.EllipticCurvePrivateKey) and secret.curve.name == "secp384r1"
    assert try_load_public_key(public) == public_key_to_bytes(secret.public_key())
    check_public_key(public)
    assert public.read_text().startswith("ecdsa-sha2-nistp384 ") and public.read_text().endswith(" pi-0\n")


def test_the_private_half_is_its_owners_alone(tmp_path):
    private, public = make_node_key(tmp_path, "pi-0")
    assert stat.S_IMODE(private.stat().st_mode) == 0o600
    assert public.stat().st_mode & 0o044


def test_two_keys_differ(tmp_path):
    assert (
        make_node_key(tmp_path, "a")[1].read_text()[:-3] != make_node_key(tmp_path, "b")[1].read_text()[:-3]
    )


@pytest.mark.parametrize("half", ["pi-0", "pi-0.pub"])
def test_a_key_is_never_overwritten(tmp_path, refused, half):
    (tmp_path / half).write_text("precious")
    with refused(CredentialsError, str(tmp_path / half), "never overwritten"):
        make_node_key(tmp_path, "pi-0")
    assert [each.read_text() for each in tmp_path.iterdir()] == ["precious"]


@pytest.mark.parametrize("name", ["", "../pi", "a/b", ".hidden", "pi.pub", "a" * 65, "a b"])
def test_a_name_that_is_no_file_name_is_refused(tmp_path, refused, name):
    with refused(CredentialsError, repr(name)):
        make_node_key(tmp_path / "keys", name)
    assert not list(tmp_path.iterdir())


def test_a_file_appearing_at_the_last_moment_is_not_overwritten(tmp_path, refused, monkeypatch):
    path = tmp_path / "key"
    link = os.link

    def late(source: Path, target: Path) -> None:
        path.write_text("precious")
        link(source, target)

    monkeypatch.setattr("os.link", late)
    with refused(CredentialsError, str(path)):
        write_new(path, b"new", private=True)
    assert [each.read_text() for each in tmp_path.iterdir()] == ["precious"]


def test_what_is_no_public_key_is_refused_and_a_private_one_is_told_apart(tmp_path, refused):
    private, public = make_node_key(tmp_path, "pi-0")
    with refused(CredentialsError, "private key", "pi-0.pub"):
        check_public_key(private)
    with refused(CredentialsError, "nothing.pub", "No such file"):
        check_public_key(tmp_path / "nothing.pub")
    public.write_text("ssh-rsa nonsense\n")
    with refused(CredentialsError, "not an OpenSSH public key", "wash-fl fleet key"):
        check_public_key(public)
    other = ed25519.Ed25519PrivateKey.generate().public_key()
    public.write_bytes(other.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH))
    with refused(CredentialsError, "not an ECDSA key"):
        check_public_key(public)


def test_ssh_keygen_makes_keys_that_are_taken_as_well(tmp_path):
    command = ["ssh-keygen", "-q", "-t", "ecdsa", "-b", "384", "-N", "", "-C", "", "-f", str(tmp_path / "k")]
    try:
        subprocess.run(command, check=True)
    except FileNotFoundError:
        pytest.skip("ssh-keygen is not installed")
    check_public_key(tmp_path / "k.pub")
