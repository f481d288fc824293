"""What a device that only infers has to install: its size, and whether it classifies an image.

    python tools/infer_install.py

Trains a small model of digits and exports it here; then makes a fresh environment, installs the extra
``infer`` of this checkout into it and nothing else, and lets it classify a test image in one command. Fails
if that takes 250 MB or more, if the answer is another than here, or if torch, Flower or ONNX came along.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from wash_fl.system.interrupts import interruptible

ROOT = Path(__file__).resolve().parent.parent
LIMIT_MB = 250
UNWANTED = ("torch", "flwr", "onnx", "grpc", "matplotlib", "sklearn")


def main() -> None:
    """Print what was found, as lines or as one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    as_json = parser.parse_args().json
    with interruptible(), tempfile.TemporaryDirectory() as folder:
        found = measure(Path(folder))
    if as_json:
        print(json.dumps(found))
    else:
        print(f"a fresh environment with wash-fl[infer]: {found['megabytes']:.0f} MB, of which")
        for name, megabytes in found["largest"].items():
            print(f"  {megabytes:6.1f} MB  {name}")
        print(f"{len(found['packages'])} packages: {', '.join(found['packages'])}")
        print(f"{found['command']}: {found['label']} ({found['probability']:.1%}), as here: {found['here']}")
    problems = problems_of(found)
    for each in problems:
        print(f"FAILED: {each}", file=sys.stderr)
    sys.exit(1 if problems else 0)


def problems_of(found: dict[str, Any]) -> list[str]:
    """Return what is not as it must be."""
    problems = []
    if found["megabytes"] >= LIMIT_MB:
        problems.append(f"{found['megabytes']:.0f} MB, and {LIMIT_MB} MB is too much")
    if found["unwanted"]:
        problems.append(f"{', '.join(found['unwanted'])} came along")
    if found["label"] != found["here"]:
        problems.append(f"the image is {found['label']!r} there and {found['here']!r} here")
    return problems


def measure(folder: Path) -> dict[str, Any]:
    """Install, measure and classify; everything is made in the folder."""
    model, image, here = _model_and_image(folder)
    environment = folder / "environment"
    _run(sys.executable, "-m", "venv", str(environment))
    python = environment / "bin" / "python"
    pip = (str(python), "-m", "pip", "--disable-pip-version-check")
    _run(*pip, "install", "--quiet", f"{ROOT}[infer]")
    packages = json.loads(_run(*pip, "list", "--format", "json"))
    sizes = _sizes(environment)
    command = [str(environment / "bin" / "wash-fl"), "predict", str(model), str(image), "--json"]
    (answer,) = json.loads(_run(*command, cwd=folder))["predictions"]
    probe = "import importlib.util as u, sys; print(*(n for n in sys.argv[1:] if u.find_spec(n)))"
    return {
        "megabytes": sum(sizes.values()) / 1e6,
        "largest": {name: size / 1e6 for name, size in sorted(sizes.items(), key=lambda each: -each[1])[:8]},
        "packages": [f"{each['name']} {each['version']}" for each in packages],
        "unwanted": _run(str(python), "-c", probe, *UNWANTED, cwd=folder).split(),
        "command": f"wash-fl predict {model.name} {image.name}",
        "label": answer["label"],
        "probability": answer["probability"],
        "here": here,
    }


def _model_and_image(folder: Path) -> tuple[Path, Path, str]:
    """Train for a moment, export, and write a test image; return also the answer that is due."""
    import torch

    from wash_fl.config import RunConfig
    from wash_fl.consensus.finish import Evaluator
    from wash_fl.export.inference import Predictor
    from wash_fl.lab.compare.trainer import Trainer
    from wash_fl.runs.exporting import export_averaged
    from wash_fl.runs.folder import RunFolder
    from wash_fl.tasks.task import load_task

    torch.set_num_threads(1)
    options = {"members": 2, "rounds": 2, "run-dir": str(folder), "run-name": "run"}
    config = RunConfig.from_mapping(options)
    weights = Trainer(config).run().weights
    model, image = folder / "model.onnx", folder / "image.png"
    evaluator = Evaluator(load_task("digits"), config)
    export_averaged(RunFolder.create(config), evaluator, weights, model)
    inputs = evaluator.inputs[0].numpy()
    Image.fromarray(np.round(255 * inputs[0]).astype(np.uint8)).save(image)
    return model, image, Predictor(model).predict(inputs).labels[0]


def _sizes(environment: Path) -> dict[str, int]:
    """Return the bytes on disk of each folder of packages, and of everything else."""
    sizes: dict[str, int] = {}
    for path in environment.rglob("*"):
        if path.is_symlink() or not path.is_file():
            continue
        parts = path.relative_to(environment).parts
        name = parts[parts.index("site-packages") + 1] if "site-packages" in parts else "everything else"
        sizes[name] = sizes.get(name, 0) + 512 * path.stat().st_blocks
    return sizes


def _run(*command: str, cwd: Path | None = None) -> str:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=environment, check=False)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command[:4])} ... ended with status {done.returncode}:\n{done.stderr.strip()}")
    return done.stdout


if __name__ == "__main__":
    main()
