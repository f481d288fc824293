"""``wash-fl compare``: methods side by side on this machine."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

INTERRUPTED = 130
HEADINGS = {
    "method": 12,
    "product": 11,
    "member": 5,
    "ens.": 5,
    "avg.": 5,
    "avg. BN": 5,
    "soup": 5,
    "kB up": 5,
    "s": 3,
}
"""What is shown of a variant, and how wide; the method may wrap."""


def register(
    app: typer.Typer, with_run_options: Callable[[Callable[..., None]], Callable[..., None]]
) -> None:
    """Add the command to the command line."""
    app.command()(with_run_options(compare))


def compare(  # noqa: PLR0917 (the command line gives them by name)
    options: dict[str, Any],
    out: Annotated[
        Path, typer.Option("--out", "-o", help="The comparison's folder; one that is there is gone on with.")
    ],
    methods: Annotated[
        str, typer.Option(help="Names with commas between, or all; see docs/evidence.md.")
    ] = "all",
    seeds: Annotated[str, typer.Option(help="Run seeds, with commas between.")] = "0,1,2",
    vary: Annotated[
        list[str] | None,
        typer.Option(help="An option and values, like local-steps=1,8,64; may be given again."),
    ] = None,
    dropout: Annotated[
        str, typer.Option(help="Probabilities that a member is away in a round, with commas between.")
    ] = "",
    workers: Annotated[int, typer.Option(help="Rows at a time; 0 for one per core.", min=0)] = 0,
    table_only: Annotated[bool, typer.Option("--table", help="Train nothing: show what is there.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object instead of a table.")
    ] = False,
) -> None:
    """Train ensembles by several methods on the same data, and put accuracy beside the bytes that it took.

    All methods have the same members, data order, learning rates and number of steps, in this process and
    without Flower. It can be interrupted; the same command goes on.
    """
    from wash_fl.compare.comparison import Comparison, Folder, cores, parsed, variants_of
    from wash_fl.compare.methods import METHODS
    from wash_fl.compare.table import COLUMNS, table
    from wash_fl.errors import ConfigError

    said = Console(stderr=True)
    if table_only:
        folder = Folder.open(out)
    else:
        names = list(METHODS) if methods == "all" else [each.strip() for each in methods.split(",")]
        numbers = [parsed(each) for each in seeds.split(",")]
        rates = [parsed(each) for each in dropout.split(",") if each]
        if not all(isinstance(each, int) for each in numbers) or not all(
            isinstance(each, int | float) for each in rates
        ):
            raise ConfigError(f"seeds = {seeds!r}, dropout = {dropout!r}: write numbers with commas between.")
        given = {key.replace("_", "-"): value for key, value in options.items()}
        comparison = Comparison(given, variants_of(names, vary or [], rates), tuple(numbers))
        folder = Folder.begin(out, comparison)
        total = len(list(folder.comparison.pairs()))

        def on_row(variant: Any, seed: int, figures: dict[str, Any]) -> None:
            done = total - len(folder.missing())
            said.print(
                f"{done}/{total}  {variant.name}, seed {seed}: {figures['accuracy']['product']:.2%}, "
                f"{figures['bytes']['up_values'] / 1e3:.0f} kB up  ({figures['seconds']:.0f} s)",
                highlight=False,
                markup=False,
            )

        try:
            folder.run(workers=workers or cores(), on_row=on_row)
        except KeyboardInterrupt:
            said.print("interrupted: the same command goes on.", highlight=False)
            raise typer.Exit(INTERRUPTED) from None
    lines = table(folder)
    if as_json:
        print(json.dumps({"comparison": str(out), "lines": [dataclasses.asdict(each) for each in lines]}))
        return
    shown = Table(
        title=f"{escape(out.name)}: test accuracy in percent (of the product ± its spread over seeds)",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    for heading, width in HEADINGS.items():
        first = heading == "method"
        shown.add_column(heading, justify="left" if first else "right", min_width=width, no_wrap=not first)
    for line in lines:
        shown.add_row(
            escape(line.variant.name),
            line.accuracy["product"].percent(),
            *(f"{100 * line.accuracy[name].mean:.2f}" for name in COLUMNS[1:]),
            f"{line.up.mean / 1e3:.0f}",
            f"{line.seconds.mean:.0f}",
        )
    Console().print(shown)
