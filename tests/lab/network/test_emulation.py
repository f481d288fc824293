"""The commands by which a kernel with netem is told how a link is."""

import shutil
import subprocess

import pytest

from wash_fl.lab.network.emulation import UNLIMITED, discipline
from wash_fl.lab.network.link import Link


def words(link: Link) -> str:
    command = " ".join(discipline("up0", link))
    start = "tc qdisc replace dev up0 root netem "
    assert command.startswith(start)
    return command.removeprefix(start)


def test_a_link_is_said_as_netem_says_it():
    assert words(Link()) == f"limit {UNLIMITED}"
    assert words(Link(delay_ms=30.0, loss=0.01)) == f"limit {UNLIMITED} delay 30ms loss 1%"
    assert words(Link(kbit=256.0, delay_ms=30.0)) == "rate 256kbit limit 22 delay 30ms"
    assert words(Link(is_cut=True)).endswith("loss 100%")


def test_the_queue_holds_what_waits_and_what_is_on_its_way():
    # A second at 12 kbit/s is one packet of 1500 bytes.
    assert "limit 5" in words(Link(kbit=12.0, queue_ms=3000.0, delay_ms=2000.0))


@pytest.mark.skipif(shutil.which("tc") is None, reason="needs iproute2")
@pytest.mark.parametrize(
    "link", [Link(), Link(kbit=256.5, delay_ms=0.5, loss=0.001), Link(kbit=1e6, delay_ms=1000.0, is_cut=True)]
)
def test_tc_understands_it(link):
    """Of a device that is not there it speaks only once it has understood the rest."""
    process = subprocess.run(discipline("none-such", link), capture_output=True, text=True, check=False)
    assert process.returncode != 0
    assert 'Cannot find device "none-such"' in process.stderr, process.stderr
