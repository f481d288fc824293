"""A measurement is printed with the machine it was made on."""

import json
from io import StringIO

from rich.console import Console

from wash_fl.lab import machine
from wash_fl.lab.bench.printing import report

FIGURES = {"ratio": 1.23456, "count": 7, "times": [0.1, 2.0], "kinds": {"drop": 11, "kill": 3}}


def test_the_machine_is_described_by_what_makes_figures_comparable():
    description = machine.machine()
    assert (
        description["cores"] >= 1 and description["cpu"] and description["system"] and description["python"]
    )
    assert {"torch", "numpy", "flwr"} <= set(description["versions"])


def test_packages_that_are_not_installed_are_left_out(monkeypatch):
    monkeypatch.setattr(machine, "PACKAGES", ("numpy", "no-such-package-at-all"))
    assert list(machine.machine()["versions"]) == ["numpy"]


def test_json_is_one_object_on_one_line_and_nothing_else(capsys):
    stream = StringIO()
    report(Console(file=stream), "wire", FIGURES, as_json=True)
    printed = capsys.readouterr().out
    assert len(printed.splitlines()) == 1 and stream.getvalue() == ""
    assert json.loads(printed) == {"bench": "wire", **FIGURES, "machine": machine.machine()}


def test_a_table_has_every_figure_and_the_machine_below(capsys):
    stream = StringIO()
    report(Console(file=stream, width=200), "wire", FIGURES, as_json=False)
    text = stream.getvalue()
    for part in (
        "bench wire",
        "ratio",
        "1.235",
        "count",
        "7",
        "times",
        "0.1, 2",
        "kinds: drop",
        "11",
        "kinds: kill",
    ):
        assert part in text
    last = text.splitlines()[-1]
    assert machine.machine()["system"] in last and "cores" in last
    assert capsys.readouterr().out == ""
