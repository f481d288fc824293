"""Models with aliases, buffers and strides of all kinds: fleet and trainer ship the same, and the right."""

import copy
import inspect
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import unusual

from wash_fl.config import RunConfig
from wash_fl.consensus.finish import Outcome
from wash_fl.export.parity import Parity
from wash_fl.flower.in_process import InProcessGrid
from wash_fl.lab.compare.trainer import Trainer
from wash_fl.runs import job
from wash_fl.runs.folder import RunFolder

PARITY = Parity(
    examples=1,
    largest_difference=0.0,
    worst_example=0,
    agreement=1.0,
    ties=0,
    first_disagreement=None,
    tolerance=1e-4,
)
MODELS = [
    name
    for name, each in vars(unusual).items()
    if inspect.isclass(each) and issubclass(each, unusual.Base) and each is not unusual.Base
]
TASK = """
from unusual import CLASSES, INPUT_SHAPE, {model} as model, data

AVERAGED_BUFFERS = {marked}

def train_data():
    return data(1, 90)

def test_data():
    return data(2, 60)
"""


def config_of(folder: Path, model: str, marked: tuple[str, ...] = (), **options: Any) -> RunConfig:
    task = folder / f"{model}.py"
    task.write_text(TASK.format(model=model, marked=marked), encoding="utf-8")
    return RunConfig.from_mapping(
        {
            "task": str(task),
            "members": 3,
            "rounds": 2,
            "local-steps": 6,
            "batch-size": 8,
            "learning-rate": 0.1,
            "p": 0.5,
            "mix": "shuffle",
            "run-name": "one",
            "run-dir": str(folder),
            **options,
        }
    )


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """``run(model, ...)``: the folder of a run on a fleet; without an export unless it is asked for."""

    def start(model: str, marked: tuple[str, ...] = (), *, export: bool = False, **options: Any) -> RunFolder:
        from clients.client_app import app

        if not export:
            monkeypatch.setattr(job, "export_averaged", lambda *_: PARITY)
        monkeypatch.setattr(job, "draw_figures", lambda *_: [])
        config = config_of(tmp_path, model, marked, **options)
        clients = {**config.to_mapping(), "state-dir": str(tmp_path / "states")}
        return job.run_job(InProcessGrid(app, 3, clients), config)

    return start


def trained(
    folder: Path, model: str, marked: tuple[str, ...] = (), **options: Any
) -> tuple[Trainer, Outcome]:
    trainer = Trainer(config_of(folder, model, marked, **options))
    return trainer, trainer.run()


@pytest.mark.parametrize("model", MODELS)
def test_a_fleet_ships_what_the_trainer_does_and_every_name_says_the_same(
    run: Any, tmp_path: Path, model: str
) -> None:
    folder = run(model)
    trainer, outcome = trained(tmp_path, model)
    weights = folder.weights()
    assert folder.summary()["weights_sha256"] == outcome.sha256
    assert weights.keys() == outcome.weights.keys() == trainer.members[0].model.state_dict().keys()
    twin = getattr(unusual, model)()
    twin.load_state_dict({name: torch.from_numpy(each) for name, each in weights.items()})
    for name, each in twin.state_dict().items():
        # Whatever was loaded last, as nobody knows which name that is.
        assert np.array_equal(each.numpy(), weights[name]), name


@pytest.mark.parametrize(
    ("model", "where"),
    [
        ("TwoNames", "clients"),
        ("TwoNames", "server"),
        ("TwoNames", "average"),
        ("ListedChildren", "clients"),
        ("NamedBuffer", "clients"),
        ("NamedBuffer", "server"),
    ],
)
def test_a_module_with_two_names_is_what_its_twin_with_one_is(
    run: Any, tmp_path: Path, model: str, where: str
) -> None:
    weights = run(model, batchnorm=where).weights()
    _, twin = trained(tmp_path, "OneName", batchnorm=where)
    for name, each in twin.weights.items():
        assert np.array_equal(weights[name], each), name
    if where != "average":
        _, averaged = trained(tmp_path, "OneName", batchnorm="average")
        assert not np.array_equal(averaged.weights["norm.running_mean"], weights["norm.running_mean"])


@pytest.mark.parametrize("model", ["Spectral", "SpectralHook", "SpectralOfTwoNames"])
def test_the_vectors_of_a_spectral_norm_are_those_of_the_averaged_weight(
    run: Any, tmp_path: Path, model: str
) -> None:
    folder = run(model)
    weights, (names,) = folder.weights(), [folder.summary()["buffers"]["recomputed"]]
    u, v = (weights[name] for name in names)
    original = "weight_orig" if model == "SpectralHook" else "parametrizations.weight.original"
    matrix = weights[f"second.{original}"]
    assert np.linalg.norm(u) == pytest.approx(1, abs=1e-6) == np.linalg.norm(v)
    assert u @ matrix @ v == pytest.approx(np.linalg.svd(matrix)[1][0], rel=1e-5)


def test_what_is_constant_stays_to_the_bit_also_if_it_is_infinite(run: Any) -> None:
    folder = run("Masked", export=True)
    initial = unusual.Masked()
    assert folder.summary()["buffers"] == {"constant": ["mask", "places"]}
    for name in ("frozen", "mask", "places"):
        assert folder.weights()[name].tobytes() == getattr(initial, name).detach().numpy().tobytes()


def test_what_has_no_mean_is_that_of_the_first_member_of_the_average(run: Any, tmp_path: Path) -> None:
    folder = run("Counting")
    trainer, _ = trained(tmp_path, "Counting")
    assert folder.summary()["buffers"] == {
        "from member 0": ["copy", "ema_mean", "quantile", "batches"],
        "constant": ["seen"],
    }
    members = [trainer.weights(index) for index in range(3)]
    for name in ("copy", "ema_mean", "quantile", "batches", "seen"):
        assert np.array_equal(folder.weights()[name], members[0][name])
    assert not np.array_equal(members[0]["ema_mean"], members[1]["ema_mean"])


def test_what_the_user_marks_is_averaged(run: Any, tmp_path: Path) -> None:
    marked = ("ema_*", "copy")
    folder = run("Counting", marked)
    trainer, outcome = trained(tmp_path, "Counting", marked)
    assert folder.summary()["buffers"]["averaged"] == ["copy", "ema_mean"]
    assert folder.summary()["buffers"]["from member 0"] == ["quantile", "batches"]
    assert folder.summary()["weights_sha256"] == outcome.sha256
    mean = np.mean([trainer.weights(index)["ema_mean"] for index in range(3)], axis=0, dtype=np.float64)
    assert np.array_equal(folder.weights()["ema_mean"], mean.astype(np.float32))


def test_batchnorm_and_instance_norm_are_told_apart_in_the_summary(run: Any) -> None:
    assert run("InstanceNorm").summary()["buffers"]["averaged"] == ["norm.running_mean", "norm.running_var"]
    norm = run("OneName", **{"run-name": "two"}).summary()["buffers"]
    assert norm["re-estimated"] == ["norm.running_mean", "norm.running_var"]
    assert norm["constant"] == ["norm.num_batches_tracked"], "all members took as many steps"


def test_a_batchnorm_that_no_example_reaches_keeps_its_statistics(run: Any, tmp_path: Path) -> None:
    folder = run("OnlyInTraining")
    summary = folder.summary()["buffers"]
    assert summary["averaged"] == ["helper.running_mean", "helper.running_var"]
    assert summary["re-estimated"] == ["norm.running_mean", "norm.running_var"]
    assert folder.weights()["helper.running_mean"].any()


def test_a_model_with_two_names_is_exported(run: Any) -> None:
    folder = run("TwoNames", export=True)
    assert folder.summary()["onnx"]["agreement"] == 1.0
    assert (folder.path / "model.onnx").stat().st_size > 0


def test_strides_of_the_weights_change_no_hash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, strided = trained(tmp_path, "Transposed")

    class Plain(unusual.Transposed):
        def between(self) -> None:
            super().between()
            for name, buffer in list(self.named_buffers()):
                self.register_buffer(name, buffer.contiguous())
            self.first.weight = torch.nn.Parameter(self.first.weight.detach().contiguous())

    monkeypatch.setattr(unusual, "Transposed", Plain)
    plain_folder = tmp_path / "plain"
    plain_folder.mkdir()
    _, plain = trained(plain_folder, "Transposed")
    strides = {copy.deepcopy(make()).first.weight.stride() for make in (Plain, Plain.__base__)}
    assert len(strides) == 2
    assert strided.sha256 == plain.sha256
