"""``wash-fl bench``: what it costs on this machine."""

from pathlib import Path
from typing import Annotated

import typer

from wash_fl.cli.terminal import Json, err, out, say, say_error
from wash_fl.config import FleetConfig
from wash_fl.lab.bench.lists import numbers

bench = typer.Typer(
    name="bench", help="Measure on this machine; each prints what it measured.", no_args_is_help=True
)
Seed = Annotated[int, typer.Option(help="Another seed, other examples.", min=0)]
Batch = Annotated[str, typer.Option(help="Batch sizes, with commas between.")]


def register(app: typer.Typer) -> None:
    """Add these commands to the command line."""
    app.add_typer(bench)


@bench.command()
def wire(as_json: Json = False) -> None:
    """Bytes of a real serialized Flower message, over the bytes of the values it carries."""
    from wash_fl.lab.bench import wire as measure
    from wash_fl.lab.bench.printing import report

    report(out, "wire", measure.run(), as_json)


@bench.command()
def exchange(as_json: Json = False) -> None:
    """Draw, gather and scatter of ResNet-18 beside one of its training steps."""
    from wash_fl.lab.bench import exchange as measure
    from wash_fl.lab.bench.printing import report

    report(out, "exchange", measure.run(), as_json)


@bench.command()
def escrow(
    quick: Annotated[bool, typer.Option("--quick", help="Measure less often.")] = False,
    as_json: Json = False,
) -> None:
    """Settling an exchange of 1,000 members, beside a plain copy of its bytes."""
    from wash_fl.lab.bench import escrow as measure
    from wash_fl.lab.bench.printing import report

    report(out, "escrow", measure.run(quick=quick), as_json)


@bench.command()
def packets(
    examples: Annotated[int, typer.Option(help="How many packets.", min=0)] = 100_000,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Mutated packets: each must be refused by name, or be the slice that was sent."""
    from wash_fl.lab.bench import packets as measure
    from wash_fl.lab.bench.printing import report

    figures = measure.run(examples, seed)
    report(out, "packets", figures, as_json)
    raise typer.Exit(1 if figures["violations"] else 0)


@bench.command()
def faults(
    examples: Annotated[int, typer.Option(help="How many runs of a small fleet.", min=0)] = 1000,
    seed: Seed = 0,
    first: Annotated[int, typer.Option(help="Number of the first, to see one again.", min=0)] = 0,
    workers: Annotated[int, typer.Option(help="Processes; 0 for one per core.", min=0)] = 0,
    as_json: Json = False,
) -> None:
    """Fleets in which all goes wrong that can: every value must be held once, always and at the end."""
    from wash_fl.lab.bench import faults as measure
    from wash_fl.lab.bench.printing import report

    figures = measure.run(examples, seed, workers=workers or None, first=first)
    report(out, "faults", figures, as_json)
    raise typer.Exit(1 if figures["violations"] else 0)


@bench.command()
def stream(
    quick: Annotated[bool, typer.Option("--quick", help="Fewer exchanges.")] = False,
    as_json: Json = False,
) -> None:
    """Exchanges over streams: 8 members in processes of their own, a ResNet-18's slices, TLS."""
    from wash_fl.lab.bench import stream as measure
    from wash_fl.lab.bench.printing import report

    report(out, "stream", measure.run(quick=quick), as_json)


@bench.command()
def link(  # noqa: PLR0917 (the command line gives them by name)
    kbit: Annotated[
        str, typer.Option(help="Kilobits per second of each device's link, with commas between; 0: no limit.")
    ] = "256,1000,10000",
    delay_ms: Annotated[float, typer.Option(help="Milliseconds, each way.", min=0)] = 30.0,
    loss: Annotated[float, typer.Option(help="Part of the packets that is lost, 0 to 1.", min=0)] = 0.0,
    methods: Annotated[
        str, typer.Option(help="fedavg (Flower's own) and recipes, with commas between.")
    ] = "fedavg,frugal,wash,pairs",
    members: Annotated[int, typer.Option(help="Devices.", min=2)] = 2,
    task: Annotated[str, typer.Option("--task", help="What is trained.")] = "digits",
    model: Annotated[str, typer.Option(help="One of the built-in models.")] = "resnet20",
    division: Annotated[str, typer.Option(help="As for a run: how the data is divided.")] = "shared",
    rounds: Annotated[int, typer.Option(help="Rounds of each run.", min=2)] = 6,
    local_steps: Annotated[int, typer.Option(help="Optimizer steps of a member per round.", min=1)] = 24,
    accuracy: Annotated[float, typer.Option(help="To be reached, 0 to 1.")] = 0.9,
    limit: Annotated[float, typer.Option(help="Seconds after which a run is stopped.", min=1)] = 900.0,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Run a real fleet over slow links: recipes beside Flower's own FedAvg, in seconds and bytes.

    Each device is in a network namespace of its own, which needs Linux and root.
    """
    from wash_fl.lab.bench import link as measure
    from wash_fl.lab.bench.link_figures import tables
    from wash_fl.lab.bench.printing import report

    settings = measure.Settings(
        kbit=numbers(kbit, "kbit", example="256,1000"),
        delay_ms=delay_ms,
        loss=loss,
        methods=tuple(methods.split(",")),
        members=members,
        task=task,
        model=model,
        division=division,
        rounds=rounds,
        local_steps=local_steps,
        accuracy=accuracy,
        limit=limit,
        seed=seed,
    )
    figures = measure.run(settings, progress=lambda line: err.print(line, highlight=False))
    report(out, "link", figures, as_json, None if as_json else tables(figures))


@bench.command()
def compression(
    quick: Annotated[
        bool, typer.Option("--quick", help="The digits and one seed: to see it work, not to conclude from.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Accuracy of the averaged model by dtype and bytes, with and without what offers leave out."""
    from wash_fl.lab.bench import compression as measure
    from wash_fl.lab.bench.printing import report

    figures = measure.run(quick, progress=lambda line: err.print(line, highlight=False))
    report(out, "compression", figures, as_json)


@bench.command()
def poison(  # noqa: PLR0917 (the command line gives them by name)
    task: Annotated[str, typer.Option("--task", help="What is trained.")] = "digits",
    seeds: Annotated[int, typer.Option(help="Runs of each kind.", min=1)] = 1,
    division: Annotated[
        str, typer.Option(help="shared, iid or dirichlet (0.1): how the data is divided.")
    ] = "shared",
    outlier_factor: Annotated[
        float, typer.Option(help="As for a run; 0 lets everything pass.", min=0)
    ] = FleetConfig.outlier_factor,
    final_average: Annotated[str, typer.Option(help="As for a run: mean, trimmed or median.")] = "mean",
    robust: Annotated[
        str,
        typer.Option(help="As for a run: none, trimmed or median (of frugal, and five members)."),
    ] = "none",
    recipes: Annotated[str, typer.Option(help="Which recipes, with commas between.")] = "",
    fleets: Annotated[str, typer.Option(help="Members and how many are bad, such as 4:1,8:2.")] = "",
    attacks: Annotated[str, typer.Option(help="Which attacks; none for honest runs alone.")] = "",
    rounds: Annotated[int, typer.Option(help="Rounds of a run.", min=1)] = 10,
    train_examples: Annotated[int, typer.Option(help="As for a run; 0 takes all.", min=0)] = 0,
    quick: Annotated[bool, typer.Option("--quick", help="One recipe, one fleet.")] = False,
    as_json: Json = False,
) -> None:
    """Train fleets with bad devices, and see what each attack does to the averaged model."""
    from wash_fl.lab.bench import poison as measure
    from wash_fl.lab.bench.printing import report

    figures = measure.run(
        task,
        **measure.cases(
            recipes=recipes, fleets=fleets, attacks=attacks, robust=robust != "none", quick=quick
        ),
        seeds=range(seeds),
        options={
            "division": division,
            "alpha": 0.1,
            "outlier-factor": outlier_factor,
            "final-average": final_average,
            "robust": robust,
            "rounds": rounds,
            "train-examples": train_examples,
        },
        progress=lambda line: err.print(line, highlight=False),
    )
    report(out, "poison", figures, as_json, None if as_json else measure.tables(figures))


@bench.command()
def overhead(
    quick: Annotated[bool, typer.Option("--quick", help="Fewer steps.")] = False,
    as_json: Json = False,
) -> None:
    """Train two ResNet-18 with an exchange after each step, with overlap, and without any exchange."""
    from wash_fl.lab.bench import overhead as measure
    from wash_fl.lab.bench.printing import report

    report(out, "overhead", measure.run(quick=quick), as_json)


@bench.command()
def inference(  # noqa: PLR0917 (the command line gives them by name)
    models: Annotated[list[Path], typer.Argument(help="ONNX files that wash-fl exported.")],
    batch: Batch = "1,32",
    repeats: Annotated[int, typer.Option(help="Turns that are measured, per batch size.", min=1)] = 200,
    warm_up: Annotated[int, typer.Option(help="Turns before that, which are not.", min=0)] = 20,
    threads: Annotated[int, typer.Option(help="Threads that onnxruntime may use.", min=1)] = 1,
    inputs: Annotated[
        list[Path] | None,
        typer.Option("--input", help="A file or a folder of inputs, as predict takes; may be given again."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the inputs, where none are given.", min=0)] = 0,
    as_json: Json = False,
) -> None:
    """Latency, throughput, start and memory of exported models; of several in turn, with ratios.

    MODELS are ONNX files that wash-fl exported; the others are compared with the first. Each answers its own
    test vectors first, and what is off is said. Needs onnxruntime and numpy, and no torch.
    """
    from wash_fl.lab.bench import inference as measure
    from wash_fl.lab.bench.inference_tables import tables
    from wash_fl.lab.bench.printing import report

    figures = measure.run(
        models,
        batches=_sizes(batch),
        repeats=repeats,
        warm_up=warm_up,
        threads=threads,
        seed=seed,
        inputs=inputs or (),
    )
    report(out, "inference", figures, as_json, tables(figures))
    for each in figures["models"]:
        check = each["check"]
        if check is not None and check["problem"]:
            say_error(f"{check['problem']}: {check['advice']}.")


@bench.command()
def int8(  # noqa: PLR0917 (the command line gives them by name)
    model: Annotated[str, typer.Option(help="One of the built-in models.")] = "resnet18",
    side: Annotated[int, typer.Option(help="Of its square images, in pixels.", min=8)] = 224,
    target: Annotated[
        str | None, typer.Option(help="arm64 or x86; by default what this machine is.", show_default=False)
    ] = None,
    batch: Batch = "1",
    repeats: Annotated[int, typer.Option(help="Turns that are measured, per batch size.", min=1)] = 100,
    as_json: Json = False,
) -> None:
    """Latency of a built-in model in int8 beside the same in float32, both exported here, in turn."""
    from wash_fl.lab.bench import int8 as measure
    from wash_fl.lab.bench.inference_tables import tables
    from wash_fl.lab.bench.printing import report

    figures = measure.run(model, side=side, target=target, batches=_sizes(batch), repeats=repeats)
    if not as_json:
        say(
            out,
            f"{model} on {side}x{side}, int8 for {figures['target']}: activations {figures['activations']}, "
            f"weights of {figures['weight_bits']} bits, {figures['size_ratio']:.3f} of the file's size",
        )
    report(out, "int8", figures, as_json, tables(figures))


@bench.command()
def memory(as_json: Json = False) -> None:
    """Memory of a device that trains MobileNetV3-small or infers, and of Flower beside it, in MB."""
    from wash_fl.lab.bench import memory as measure
    from wash_fl.lab.bench.printing import report

    report(out, "memory", measure.run(), as_json)


def _sizes(batch: str) -> tuple[int, ...]:
    return numbers(batch, "batch", int, example="1,32")
