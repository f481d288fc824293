"""The ensemble of a run that kept its members' models, as one file; a run that did not says what to do."""

import numpy as np
import pytest

from wash_fl.consensus.evaluate import logits_of
from wash_fl.consensus.finish import Evaluator
from wash_fl.export import Predictor
from wash_fl.runs.folder import ENSEMBLE, MODEL, MODELS, RunFolder
from wash_fl.tasks.task import load_task

SHORT = ("--members", "3", "--rounds", "2", "--local-steps", "4", "--test-examples", "90")


@pytest.mark.usefixtures("simulated_here")
def test_the_file_answers_with_the_mean_of_the_collected_members_logits(wash, tmp_path):
    ran = wash("simulate", *SHORT, "--save-members", "--run-dir", tmp_path, "--run-name", "one")
    assert ran.status == 0, ran.err
    folder = RunFolder.open(tmp_path / "one")
    exported = wash("export", folder.path, "--ensemble")
    assert (exported.status, exported.err) == (0, "")
    assert exported.out.splitlines()[-1].startswith(f"{folder.path / ENSEMBLE}: largest difference")

    evaluator = Evaluator(load_task("digits"), folder.config)
    alone = [logits_of(evaluator.model(each), evaluator.inputs) for each in folder.members().values()]
    assert len(alone) == 3 and np.abs(alone[0] - alone[1]).max() > 0.01
    predictor = Predictor(folder.path / ENSEMBLE)
    together = predictor.predict(evaluator.inputs.numpy()).logits
    np.testing.assert_allclose(together, np.mean(alone, axis=0), rtol=0, atol=1e-5)
    accuracy = folder.summary()["accuracy"]
    assert np.mean(together.argmax(1) == evaluator.targets) == accuracy["ensemble"]
    for member, logits in enumerate(alone):
        assert np.mean(logits.argmax(1) == evaluator.targets) == accuracy["members"][str(member)]

    # And once more for raw inputs: digits of 16 levels are not quite the same as bytes.
    again = wash("export", folder.path, "--ensemble", "--raw-inputs")
    assert again.status == 0 and "ensemble.raw.onnx: largest difference to ensemble.onnx" in again.out
    bytes_ = np.round(255 * evaluator.inputs.numpy()).astype(np.uint8)
    raw = Predictor(folder.path / "ensemble.raw.onnx").predict(bytes_).logits
    np.testing.assert_allclose(raw, together, rtol=0, atol=0.1)

    averaged = Predictor(folder.path / MODEL).card.run
    assert predictor.card.run["ensemble"] == "0, 1, 2" and "ensemble" not in averaged
    assert predictor.card.run["weights_sha256"] != averaged["weights_sha256"]


@pytest.mark.usefixtures("simulated_here")
def test_members_are_not_kept_unless_asked_and_their_absence_says_what_to_do(wash, tmp_path):
    assert wash("simulate", *SHORT, "--run-dir", tmp_path, "--run-name", "one").status == 0
    assert not (tmp_path / "one" / MODELS).exists()
    refused = wash("export", tmp_path / "one", "--ensemble", columns=200)
    assert (refused.status, len(refused.err.splitlines())) == (1, 1)
    assert f"{MODELS}/0.safetensors" in refused.err and "--save-members" in refused.err
