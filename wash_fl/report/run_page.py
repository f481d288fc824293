"""The page of a run: the answer, the curves, the members, the options."""

import dataclasses
from collections.abc import Iterator

from wash_fl.config import GROUPS, RunConfig, fields
from wash_fl.report.amounts import on_links, percent, size
from wash_fl.report.page import (
    Column,
    Content,
    Html,
    Page,
    Section,
    code,
    figure,
    figures,
    folded,
    paragraph,
    strong,
    table,
)
from wash_fl.report.svg import inline_svg
from wash_fl.runs.figures import Figure, run_figures
from wash_fl.runs.folder import MODEL, PLACES
from wash_fl.runs.record import Result, RunRecord

LONG = 24
"""A table of more members is folded, so that the options are not far below."""


def run_page(record: RunRecord) -> Page:
    """Return the page of a run, finished or not."""
    return Page(
        title=f"Run {record.name}",
        about=_about(record.config),
        answer=list(_answer(record)),
        sections=[
            Section("Curves", list(_curves(record))),
            Section("Members", list(_members(record))),
            Section("Options", list(_options(record.config))),
        ],
        made_by=f"wash_fl {record.version}".strip(),
    )


def _about(config: RunConfig | None) -> str:
    if config is None:
        return "its options are lost"
    return f"{config.task.task}, {config.training.members} members, {config.training.rounds} rounds"


def _answer(record: RunRecord) -> Iterator[Html]:
    if record.result is not None:
        yield from _outcome(record.result)
    elif record.finished:
        yield from _without_summary(record)
    else:
        yield from _unfinished(record)
    if record.missing:
        yield paragraph(
            strong("Not whole"), f": {'; '.join(record.missing)}. The rest of this page is without it."
        )
    yield from _traffic(record)
    if record.result is not None:
        yield _in_the_average(record.result)
        yield _model(record, record.result)


def _outcome(result: Result) -> Iterator[Html]:
    yield paragraph(
        "The averaged model answers ",
        strong(percent(result.averaged)),
        " of the test data right.",
        kind="lead",
    )
    each = result.members.values()
    spread = f" ({percent(min(each))} to {percent(max(each))})" if each else ""
    yield paragraph(
        f"The ensemble of its {len(each)} members: {percent(result.ensemble)}. "
        f"A member alone: {percent(result.mean_member)} on average{spread}."
    )


def _without_summary(record: RunRecord) -> Iterator[Html]:
    """Tell of a finished run what was logged while it went on."""
    if record.averaged is None:
        yield paragraph("This run is finished, and what came out is not on record.", kind="lead")
        return
    yield paragraph(
        "The averaged model answered ",
        strong(percent(record.averaged)),
        " of the test data right when it was made.",
        kind="lead",
    )


def _unfinished(record: RunRecord) -> Iterator[Html]:
    progress = str(record.rounds[-1].number if record.rounds else 0)
    if record.config is not None:
        progress += f" of {record.config.training.rounds}"
    yield paragraph(
        strong("This run is not finished"),
        f": {progress} rounds are done, and there is no averaged model.",
        kind="lead",
    )
    if record.failure:
        yield paragraph(f"It stopped: {record.failure}")
    for each in reversed(record.rounds):
        accuracies = [metrics["accuracy"] for metrics in each.metrics.values() if "accuracy" in metrics]
        if accuracies:
            yield paragraph(
                f"In round {each.number} the members alone answered {percent(min(accuracies))} to "
                f"{percent(max(accuracies))} of the test data right."
            )
            break
    aside = {member: reason for each in record.rounds for member, reason in each.aside.items()}
    for member, reason in sorted(aside.items()):
        yield paragraph(f"Member {member} was set aside: {reason}")


def _traffic(record: RunRecord) -> Iterator[Html]:
    traffic, members = record.traffic, len(record.members)
    if not members or "up_messages" not in traffic:
        return
    text = (
        f"Each member sent {size(traffic['up_messages'] / members)} up while training, "
        f"{size(traffic.get('up_values', 0) / members)} of it values"
    )
    collected = len(record.result.members) if record.result is not None else 0
    if collected and traffic.get("up_models"):
        text += f", and its model ({size(traffic['up_models'] / collected)}) once at the end"
    yield paragraph(f"{text}.")
    if line := on_links(traffic, members):
        yield paragraph(f"{line[0].upper()}{line[1:]}.")


def _in_the_average(result: Result) -> Html:
    if not result.left_out:
        return paragraph(f"All {len(result.members)} members are in the average.")
    reasons = "; ".join(f"member {member} ({reason})" for member, reason in sorted(result.left_out.items()))
    return paragraph(strong("Not in the average"), f": {reasons}.")


def _model(record: RunRecord, result: Result) -> Html:
    if record.model is None:
        return paragraph(f"There is no {MODEL} in the folder any more.")
    parts: list[Content] = [code(MODEL), f": {size(record.model.bytes)}"]
    if result.agreement is not None and result.difference is not None:
        parts.append(
            f", {percent(result.agreement)} equal answers to PyTorch's, "
            f"largest difference {result.difference:.2g}"
        )
    return paragraph(*parts, ". SHA-256 ", code(record.model.sha256))


def drawn_figures(record: RunRecord) -> list[Figure]:
    """Return the figures of a run in which there is something to see."""
    result = record.result
    final = None if result is None else {"averaged": result.averaged, "ensemble": result.ensemble}
    return [each for each in run_figures(record.rounds, final) if not each.empty]


def _curves(record: RunRecord) -> Iterator[Html]:
    plots = drawn_figures(record)
    if plots:
        yield figures([figure(inline_svg(each), each.title) for each in plots])
    else:
        yield paragraph("No round is on record.", kind="soft")


def _members(record: RunRecord) -> Iterator[Html]:
    members = record.members
    if not members:
        yield paragraph("No member has reported yet.", kind="soft")
        return
    last = {member: metrics for each in record.rounds for member, metrics in each.metrics.items()}
    final = record.result.members if record.result is not None else record.collected
    reported = {name for metrics in last.values() for name in metrics} - {"accuracy"}
    names = sorted(reported, key=lambda name: (name != "loss", name))
    columns = [Column("member", number=True), Column("test accuracy", number=True)]
    if record.result is not None:
        columns += [Column("averaged")]
    columns += [Column("rounds", number=True)]
    if record.by_member:
        columns += [Column(title, number=True) for title in ("exchanges", "up", "of it values", "down")]
    columns += [Column(f"last {name}", number=True) for name in names]

    def row(member: int) -> Iterator[str]:
        metrics = last.get(member, {})
        accuracy = final.get(member, metrics.get("accuracy"))
        yield str(member)
        yield "–" if accuracy is None else percent(accuracy)
        if record.result is not None:
            yield "no" if member in record.result.left_out else "yes"
        yield str(sum(member in each.metrics for each in record.rounds))
        if record.by_member:
            traffic = record.by_member.get(member)
            yield "–" if traffic is None else str(traffic.exchanges)
            yield "–" if traffic is None else size(traffic.up_messages)
            yield "–" if traffic is None else size(traffic.up_values)
            yield "–" if traffic is None else size(traffic.down_messages)
        for name in names:
            yield f"{metrics[name]:.4g}" if name in metrics else "–"

    caption = "Bytes up and down are those of the exchanges." if record.by_member else ""
    content = table(columns, [list(row(member)) for member in members], caption)
    yield content if len(members) <= LONG else folded(f"All {len(members)} members", content)


def _options(config: RunConfig | None) -> Iterator[Html]:
    if config is None:
        yield paragraph("The options cannot be read.", kind="soft")
        return
    options, specs = config.to_mapping(), fields()
    names = [key for key in options if key not in PLACES]
    changed = [key for key in names if options[key] != specs[key].default]
    columns = [Column("option"), Column("value"), Column("default")]
    if changed:
        yield table(
            columns,
            [[code(key), _value(options[key]), _value(specs[key].default)] for key in changed],
            caption="Not at their defaults",
        )
    else:
        yield paragraph("All options are at their defaults.")
    columns = [Column("option"), Column("value"), Column("what it is")]
    tables = []
    for group, kind in GROUPS.items():
        keys = [key for key in names if specs[key] in dataclasses.fields(kind)]
        rows = [[code(key), _value(options[key]), specs[key].metadata["help"]] for key in keys]
        tables.append(table(columns, rows, caption=group.capitalize()))
    yield folded("All options", *tables)


def _value(value: object) -> Content:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value) if value != "" else "none"
