"""The page of a comparison: which method to take, the curves, the table, the claims, the options."""

from collections.abc import Iterator, Sequence

import wash_fl
from wash_fl.config import fields
from wash_fl.lab.compare.claims import answers
from wash_fl.lab.compare.comparison import Folder
from wash_fl.lab.compare.figures import comparison_figures
from wash_fl.lab.compare.methods import METHODS
from wash_fl.lab.compare.rivals import HEAD, rivals
from wash_fl.lab.compare.table import COLUMNS, Line, budget_lines, part_of_fedavg, table
from wash_fl.report.amounts import percent, size
from wash_fl.report.page import Column, Html, Page, Section, code, figure, figures, paragraph, strong
from wash_fl.report.page import table as listed
from wash_fl.report.svg import inline_svg

HEADINGS = {
    "product": "product",
    "member": "member",
    "ensemble": "ensemble",
    "averaged": "averaged",
    "recalibrated": "averaged, BatchNorm re-estimated",
    "soup": "greedy soup",
}


def comparison_page(folder: Folder) -> Page:
    """Return the page of a comparison, as far as it is done."""
    comparison, lines = folder.comparison, table(folder)
    done = sum(line.seeds for line in lines)
    total = len(comparison.variants) * len(comparison.seeds)
    options = comparison.row(comparison.variants[0], comparison.seeds[0]).config
    about = f"{options.task.task}, {options.training.members} members, {len(comparison.seeds)} seeds"
    return Page(
        title=f"Comparison {folder.path.resolve().name}",
        about=about if done == total else f"{about}; {done} of {total} runs are done",
        answer=list(_answer(lines)),
        sections=[
            Section("Curves", list(_curves(folder, lines))),
            Section("Methods", [*_table(folder, lines), *_budget(folder)]),
            *_beside(folder),
            Section("Claims", list(_claims(folder))),
            Section("Options", list(_options(folder))),
        ],
        made_by=f"wash_fl {wash_fl.__version__}",
    )


def _answer(lines: Sequence[Line]) -> Iterator[Html]:
    """Say which model is best, and which is as good within the spread for the fewest bytes."""
    if not lines:
        yield paragraph("Nothing is trained yet.", kind="lead")
        return
    best = max(lines, key=lambda line: line.accuracy["product"].mean)
    reach = best.accuracy["product"].mean - best.accuracy["product"].deviation
    near = [line for line in lines if line.accuracy["product"].mean >= reach]
    cheap = min(near, key=lambda line: line.up.mean)
    yield paragraph(
        strong(best.variant.name),
        f" gives the best single model: {percent(best.accuracy['product'].mean)} of the test data right, for "
        f"{size(best.up.mean)} that each member uploads.",
        kind="lead",
    )
    if cheap is not best:
        yield paragraph(
            strong(cheap.variant.name),
            f" is within its spread ({percent(cheap.accuracy['product'].mean)}), for {size(cheap.up.mean)}.",
        )
    ensembles = max(lines, key=lambda line: line.accuracy["ensemble"].mean)
    yield paragraph(
        f"The best ensemble is that of {ensembles.variant.name}: "
        f"{percent(ensembles.accuracy['ensemble'].mean)}, for as many models as members."
    )


def _curves(folder: Folder, lines: Sequence[Line]) -> Iterator[Html]:
    if lines:
        yield figures([figure(inline_svg(each), each.title) for each in comparison_figures(folder, lines)])
    else:
        yield paragraph("No run is done.", kind="soft")


def _table(folder: Folder, lines: Sequence[Line]) -> Iterator[Html]:
    columns = [
        Column("method"),
        *(Column(HEADINGS[name], number=True) for name in COLUMNS),
        Column("up", number=True),
        Column("of messages", number=True),
        Column("down", number=True),
        Column("of FedAvg", number=True),
        Column("barrier", number=True),
        Column("seconds", number=True),
    ]
    rows = [
        [
            line.variant.name,
            *(line.accuracy[name].percent() for name in COLUMNS),
            size(line.up.mean),
            size(line.messages.mean),
            size(line.down.mean),
            part_of_fedavg(line, folder.comparison.budget),
            f"{line.barrier.mean:.3f}",
            f"{line.seconds.mean:.0f}",
        ]
        for line in lines
    ]
    yield listed(columns, rows, "Test accuracy in percent: mean ± standard deviation over the seeds.")
    yield paragraph(
        "The product is the one model that a method ships. Bytes are a member's while it trains: values up, "
        "the messages they are in, values down; and what part of FedAvg's (every round, all values, float32) "
        "the packets are, up and down.",
        kind="soft",
    )
    if knobs := [[line.variant.name, line.knob] for line in lines if line.knob]:
        yield listed([Column("method"), Column("knob")], knobs, "What decided how much was sent")
    names = dict.fromkeys(line.variant.method for line in lines)
    yield listed(
        [Column("method"), Column("from")], [[name, METHODS[name].source] for name in names], "Sources"
    )


def _budget(folder: Folder) -> Iterator[Html]:
    for each in budget_lines(folder):
        yield paragraph(each, kind="soft")


def _beside(folder: Folder) -> Iterator[Section]:
    found = rivals(folder)
    if found:
        columns = [Column(HEAD[0]), *(Column(each, number=True) for each in HEAD[1:])]
        about = "Points of accuracy of the product, seed by seed: their mean ± its standard error; values up."
        yield Section("WASH and its rivals", [listed(columns, [each.texts() for each in found], about)])


def _claims(folder: Folder) -> Iterator[Html]:
    found = answers(folder)
    if not found:
        yield paragraph("None of the paper's claims can be answered by these runs.", kind="soft")
        return
    yield listed(
        [Column("claim"), Column("answer"), Column("figures")],
        [(each.claim, strong(each.verdict), each.why) for each in found],
        "Differences in accuracy or loss, with their standard error over the seeds.",
    )


def _options(folder: Folder) -> Iterator[Html]:
    comparison, known = folder.comparison, fields()
    rows = [
        (code(key), str(value), str(known[key].default)) for key, value in sorted(comparison.options.items())
    ]
    if rows:
        yield listed([Column("option"), Column("value"), Column("default")], rows, "Not at their defaults")
    yield paragraph("Seeds: " + ", ".join(map(str, comparison.seeds)) + ".")
