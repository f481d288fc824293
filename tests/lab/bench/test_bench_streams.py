"""The benches of the stream plane, small: real processes, TLS, and figures that can be what they say."""

import json
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Barrier

import pytest
from typer.testing import CliRunner

from wash_fl.cli.main import app
from wash_fl.errors import RunError
from wash_fl.lab.bench import overhead, stream
from wash_fl.lab.bench.processes import results_of

pytestmark = pytest.mark.timeout(600)


@pytest.mark.long
def test_bench_stream(monkeypatch):
    monkeypatch.setattr(stream, "MEMBERS", 2)
    result = CliRunner().invoke(app, ["bench", "stream", "--quick", "--json"])
    content = json.loads(result.stdout)
    assert result.exit_code == 0 and content["bench"] == "stream"
    assert (content["members"], content["exchanges"]) == (2, stream.QUICK)
    assert content["values"] == pytest.approx(11_700, rel=0.01)
    assert 0 < content["exchange_ms_p50"] <= content["exchange_ms_p99"]
    assert content["vs_bare"] == pytest.approx(content["exchange_ms_p50"] / content["bare_ms_p50"])
    assert content["vs_bare"] > 1.0
    # Messages, HTTP/2 and TLS beside 47 kB of values.
    assert 1.0 < content["wire_ratio"] <= 1.03
    assert content["bytes"]["up_payload"] == pytest.approx(2 * 4 * content["values"] * stream.QUICK, rel=0.01)
    assert content["server_growth_mb"] < 20


def half(number: int, barrier: Barrier, connection: Connection) -> None:
    barrier.wait()
    if number % 2:
        raise ValueError("odd")
    connection.send(number // 2)


@pytest.mark.slow
def test_processes_send_their_results_or_their_failure_is_said() -> None:
    assert results_of(half, [(0,), (4,), (2,)]) == [0, 2, 1]
    with pytest.raises(RunError, match="process"):
        results_of(half, [(0,), (3,)])


@pytest.mark.long
def test_bench_overhead():
    result = CliRunner().invoke(app, ["bench", "overhead", "--quick", "--json"])
    content = json.loads(result.stdout)
    assert result.exit_code == 0 and content["bench"] == "overhead"
    assert content["steps"] == overhead.STEPS * overhead.QUICK_BLOCKS
    assert 0 < content["exchange_alone_ms"] <= content["exchange_ms"] and content["step_ms"] > 0
    assert min(content["overhead"], content["overhead_overlap"]) > -0.9
