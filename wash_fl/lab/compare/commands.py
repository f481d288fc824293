"""``wash-fl compare``: methods side by side on this machine."""

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from wash_fl.cli.check import refuse_bad_task
from wash_fl.cli.options import with_run_options
from wash_fl.config import RunConfig
from wash_fl.errors import INTERRUPTED, ConfigError

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


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command()(with_run_options(compare))


def compare(  # noqa: PLR0917 (the command line gives them by name)
    options: dict[str, Any],
    folders: Annotated[
        list[Path] | None,
        typer.Argument(help="With --table: comparisons of the same options, shown as one over all seeds."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="The comparison's folder; one that is there is gone on with."),
    ] = None,
    methods: Annotated[
        str, typer.Option(help="Names with commas between, or all; see docs/evidence.md.")
    ] = "all",
    seeds: Annotated[str, typer.Option(help="Run seeds, with commas between.")] = "0,1,2",
    vary: Annotated[
        list[str] | None,
        typer.Option(
            help="An option of the run or a method, and values, like local-steps=1,8,64; may be repeated."
        ),
    ] = None,
    dropout: Annotated[
        str, typer.Option(help="Probabilities that a member is away in a round, with commas between.")
    ] = "",
    budget: Annotated[
        str | None,
        typer.Option(
            help="Train every method with this part of FedAvg's bytes (every round, all values, float32), up "
            "and down together, such as 0.05: each chooses its knob by a rule, which is printed, or says why "
            "it cannot.",
            metavar="PART",
        ),
    ] = None,
    workers: Annotated[int, typer.Option(help="Rows at a time; 0 for one per core.", min=0)] = 0,
    table_only: Annotated[bool, typer.Option("--table", help="Train nothing: show what is there.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead.")] = False,
    as_markdown: Annotated[
        bool,
        typer.Option(
            "--markdown", help="Print it for a document, with WASH beside each rival and the claims."
        ),
    ] = False,
) -> None:
    """Train ensembles by several methods on the same data, and put accuracy beside the bytes that it took.

    All methods have the same members, data order, learning rates and number of steps, in this process and
    without Flower. It can be interrupted; the same command goes on.
    """
    from wash_fl.lab.compare.budget import read_budget
    from wash_fl.lab.compare.claims import answers
    from wash_fl.lab.compare.comparison import Folder
    from wash_fl.lab.compare.rivals import rivals
    from wash_fl.lab.compare.table import budget_lines, markdown, table
    from wash_fl.lab.machine import cores

    part = 0.0 if budget is None else read_budget(budget)
    shown = [*([out] if out else []), *(folders or [])]
    if not shown:
        raise ConfigError("no folder is given: write -o FOLDER, or --table FOLDER to see what is there.")
    if table_only:
        folder = Folder.together(shown)
    elif folders:
        raise ConfigError("only --table takes several folders; what is trained goes into one: -o FOLDER.")
    else:
        comparison = _comparison(
            options, methods=methods, seeds=seeds, vary=vary or [], dropout=dropout, budget=part
        )
        for settings in _tasks(comparison):
            refuse_bad_task(settings, exports=False)
        folder = Folder.begin(shown[0], comparison)
        _train(folder, workers or cores())
    lines, beside, claims = table(folder), rivals(folder), answers(folder)
    rules = budget_lines(folder)
    if as_json:
        told: dict[str, Any] = {
            "comparison": " ".join(map(str, shown)),
            "lines": [dataclasses.asdict(each) for each in lines],
            "rivals": [each.to_json() for each in beside],
            "claims": [dataclasses.asdict(each) for each in claims],
        }
        if folder.comparison.budget:
            told |= {"budget": folder.comparison.budget, "rules": rules}
        print(json.dumps(told))
    elif as_markdown:
        said = [(each.claim, each.verdict, each.why) for each in claims]
        print(markdown(lines, [each.texts() for each in beside], said, folder.comparison.budget, rules))
    else:
        _show(" and ".join(each.name for each in shown), lines, folder.comparison.budget)
        for each in rules:
            print(each)


def _comparison(
    options: dict[str, Any], *, methods: str, seeds: str, vary: list[str], dropout: str, budget: float
) -> Any:
    """Return what is to be compared; with a budget, with the knobs that the methods choose for it."""
    from wash_fl.lab.compare.comparison import Comparison, variants_of
    from wash_fl.lab.compare.methods import METHODS
    from wash_fl.lab.compare.within import within

    names = list(METHODS) if methods == "all" else [each.strip() for each in methods.split(",")]
    given = {key.replace("_", "-"): value for key, value in options.items()}
    rates, runs = _numbers("dropout", dropout, float), tuple(_numbers("seeds", seeds, int))
    variants = variants_of(names, vary, rates)
    if not budget:
        return Comparison(given, variants, runs)
    if rates:
        raise ConfigError(
            "dropout does not go with budget, for what is sent then depends on who is away: leave one of the "
            "two out."
        )
    able, unable = within(budget, given, variants, next(iter(runs), 0))
    if not able:
        why = "; ".join(f"{name}: {each}" for name, each in unable.items())
        raise ConfigError(f"no method can meet the budget {budget:g} ({why}): choose another.")
    return Comparison(given, able, runs, budget, unable)


def _numbers(name: str, text: str, kind: type) -> list[Any]:
    try:
        return [kind(each) for each in text.split(",") if each]
    except ValueError:
        raise ConfigError(f"{name} = {text!r}: write numbers with commas between.") from None


def _tasks(comparison: Any) -> Iterator[RunConfig]:
    """Yield options with which rows are trained, one for each task, model and division of data."""
    seen = set()
    for pair in comparison.pairs():
        config = comparison.row(*pair).config
        if config.task not in seen:
            seen.add(config.task)
            yield config


def _train(folder: Any, workers: int) -> None:
    said = Console(stderr=True)
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
        folder.run(workers=workers, on_row=on_row)
    except KeyboardInterrupt:
        said.print("interrupted: the same command goes on.", highlight=False)
        raise typer.Exit(INTERRUPTED) from None


def _show(name: str, lines: Any, budget: float) -> None:
    from wash_fl.lab.compare.table import COLUMNS, part_of_fedavg

    shown = Table(
        title=f"{escape(name)}: test accuracy in percent (of the product ± its spread over seeds)",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    # Eighty columns hold one more figure: with a budget it is the bytes, as a part of FedAvg's.
    last = {"of FedAvg": 9} if budget else {name: HEADINGS[name] for name in ("kB up", "s")}
    headings = {name: width for name, width in HEADINGS.items() if name not in ("kB up", "s")} | last
    for heading, width in headings.items():
        first = heading == "method"
        shown.add_column(
            heading, justify="left" if first else "right", min_width=width, no_wrap=not first, overflow="fold"
        )
    for line in lines:
        sent = [f"{line.up.mean / 1e3:.0f}", f"{line.seconds.mean:.0f}"]
        shown.add_row(
            escape(line.variant.name),
            line.accuracy["product"].percent(),
            *(f"{100 * line.accuracy[each].mean:.2f}" for each in COLUMNS[1:]),
            *([part_of_fedavg(line, budget)] if budget else sent),
        )
    Console().print(shown)
    for line in lines:
        if line.knob:
            print(f"{line.variant.name}: {line.knob}; {part_of_fedavg(line, budget)} of FedAvg's bytes")
