"""The bytes of an experiment are those that a run on Flower counts."""

from pathlib import Path

import pytest

from wash_fl.config import RunConfig
from wash_fl.core.packet import packet_size
from wash_fl.flower.in_process import InProcessGrid
from wash_fl.lab.compare.methods import METHODS
from wash_fl.lab.compare.post import Post
from wash_fl.lab.compare.trainer import Trainer
from wash_fl.runs.folder import RunFolder
from wash_fl.runs.job import run_job

OPTIONS = {
    "recipe": "none",
    "members": 3,
    "rounds": 5,
    "local-steps": 2,
    "p": 0.2,
    "train-examples": 100,
    "test-examples": 50,
    "evaluate-every": 0,
}


@pytest.mark.parametrize(
    "options", [{}, {"dtype": "int8", "topology": "permutation"}, {"exchange-optimizer": True}]
)
@pytest.mark.usefixtures("only_trained")
def test_slices_are_counted_as_in_a_run(tmp_path: Path, options: dict[str, object]) -> None:
    from clients.client_app import app

    config = RunConfig.from_mapping({**OPTIONS, **options, "run-dir": str(tmp_path), "run-name": "one"})
    run_job(InProcessGrid(app, 3, {**config.to_mapping(), "state-dir": str(tmp_path / "states")}), config)
    real = RunFolder.open(tmp_path / "one").summary()["bytes"]
    post = Post(config)
    Trainer(config, post=post).run()
    post.finish()
    found = {name: 3 * value for name, value in post.per_member(3).items()}
    for way in ("up", "down"):
        assert found[f"{way}_values"] == real[f"{way}_values"] > 0
        # A run greets its members, too, which takes its terms and layout: 2 kB each way at most.
        assert 0 <= real[f"{way}_messages"] - found[f"{way}_messages"] < 3 * 6000


def test_a_whole_model_is_all_its_arrays() -> None:
    method = METHODS["fedavg"]
    config = method.config(OPTIONS)
    post = Post(config)
    from wash_fl.tasks.task import load_task

    cohort = method.make(config, load_task("digits"), 0.0, post, method.knobs())
    size = sum(each.nbytes for each in cohort.weights(0).values())
    cohort.run()
    found = post.per_member(3)
    assert found["up_values"] == found["down_values"] == 5 * size
    assert found["up_packets"] == found["up_values"]
    assert 1.0 < found["up_messages"] / found["up_values"] < 1.3


def test_a_packet_of_any_payload_is_as_large_as_that_of_a_slice() -> None:
    config = RunConfig.from_mapping({**OPTIONS, "rounds": 1})
    post = Post(config)
    trainer = Trainer(config, post=post)
    layout = trainer.members[0].layout
    trainer.run()
    found = post.per_member(3)
    # One offer each; member 0 and the numbers of an exchange take a byte or two less or more.
    expected = packet_size(layout, int(found["up_values"]))
    assert expected - 2 <= found["up_packets"] <= expected
    own = Post(config)
    own.payload(0, 1, layout, up=100, down=0)
    counted = own.per_member(1)
    assert (counted["up_values"], counted["down_values"], counted["down_packets"]) == (100, 0, 0)
    assert 100 < counted["up_packets"] == packet_size(layout, 100) < counted["up_messages"]


def test_streams_are_counted_by_their_messages() -> None:
    config = RunConfig.from_mapping({**OPTIONS, "exchange-plane": "stream", "every": 1})
    post = Post(config)
    Trainer(config, post=post).run()
    found = post.per_member(3)
    # Ten exchanges, and what is drawn at each.
    draw = Trainer(config).members[0].draw
    values = sum(4 * draw.count(number) for number in range(1, 11))
    assert found["up_values"] == values
    assert values < found["up_messages"] < 1.1 * values
