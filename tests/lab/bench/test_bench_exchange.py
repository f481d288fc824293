"""The bench of an exchange measures what it says; how long things take is the machine's affair."""

import pytest
import torch

from wash_fl.core.draw import Draw
from wash_fl.lab.bench import exchange

SIZES = (600, 6_000, 60_000)


@pytest.fixture
def small(monkeypatch):
    pytest.importorskip("torchvision")
    changes = {"REPEATS": 2, "BATCH": 2, "SIZES": SIZES, "FIXED_COUNT": 60, "P": 0.01}
    for name, value in changes.items():
        monkeypatch.setattr(exchange, name, value)


def test_every_figure_is_there_and_is_a_time_or_a_count(small):
    figures = exchange.run()
    times = [figures[f"{part}_ms"] for part in ("step", "draw", "gather", "scatter")]
    assert all(isinstance(each, float) and each > 0 for each in times)
    assert figures["share_of_step"] == pytest.approx(sum(times[1:]) / times[0])
    assert figures["sizes"] == list(SIZES)
    for name in ("fixed_count_draw_ms", "draw_ms_by_size"):
        assert len(figures[name]) == 3 and all(each > 0 for each in figures[name])
    assert figures["parameters"] == 11_181_642  # ResNet-18 for ten classes
    assert figures["values"] == pytest.approx(0.01 * figures["parameters"], rel=0.01)


def test_the_draws_are_of_the_sizes_and_counts_they_are_named_after(small, monkeypatch):
    sizes: list[tuple[int, int]] = []
    coordinates = Draw.coordinates

    def spied(self, number):
        indices = coordinates(self, number)
        sizes.append((self.layout.size, len(indices)))
        return indices

    monkeypatch.setattr(Draw, "coordinates", spied)
    exchange._draws()
    assert {size for size, _ in sizes} == set(SIZES)
    assert {(size, count) for size, count in sizes if count == 60} >= {(size, 60) for size in SIZES}
    assert {count for size, count in sizes if size == 60_000} == {60, 600}


def test_one_thread_while_measuring_and_as_many_as_before_after(monkeypatch):
    threads: list[int] = []
    monkeypatch.setattr(exchange, "_resnet", lambda: threads.append(torch.get_num_threads()) or {})
    monkeypatch.setattr(exchange, "_draws", dict)
    torch.set_num_threads(2)
    try:
        exchange.run()
        assert (threads, torch.get_num_threads()) == ([1], 2)
    finally:
        torch.set_num_threads(1)


def test_the_sizes_that_are_measured_span_a_hundredfold():
    assert exchange.SIZES == (1_000_000, 10_000_000, 100_000_000)
