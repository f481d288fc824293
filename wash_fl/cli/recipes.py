"""``wash-fl recipes``: what the named recipes do, and what they cost."""

from typing import Annotated

import typer

from wash_fl.cli.terminal import out
from wash_fl.config import TaskConfig, TrainingConfig


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command()(recipes)


def recipes(
    task: Annotated[str, typer.Option(help="The task: its default model counts.")] = TaskConfig().task,
    model: Annotated[str, typer.Option(help="The model.")] = TaskConfig().model,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds of the run.")] = TrainingConfig().rounds,
    local_steps: Annotated[
        int, typer.Option(min=1, help="Optimizer steps per round.")
    ] = TrainingConfig().local_steps,
) -> None:
    """Explain the recipes of --recipe, with the megabytes of a member beside FedAvg's.

    Its own initial and final model are not counted, for any of them.
    """
    from wash_fl.core.cost import cost_of_run
    from wash_fl.core.recipes import RECIPES, exchange_of, sentence
    from wash_fl.member.parameters import model_layout
    from wash_fl.report.amounts import size
    from wash_fl.tasks.models import initial_model
    from wash_fl.tasks.task import load_task

    layout = model_layout(initial_model(model, load_task(task), seed=0))
    exchanges = {name: exchange_of(name, local_steps=local_steps) for name in RECIPES}
    costs = {name: cost_of_run(layout, each, rounds, local_steps) for name, each in exchanges.items()}
    fedavg = next(iter(costs.values())).fedavg
    out.print(
        f"{layout.size:,} parameters, {rounds} rounds of {local_steps} steps. FedAvg: "
        f"{size(fedavg)} up and as many down, for each member.",
        highlight=False,
    )
    for name, recipe in RECIPES.items():
        exchange, cost = exchanges[name], costs[name]
        share = (cost.up + cost.down) / (2 * cost.fedavg)
        out.print(f"\n[bold]{name}[/] for {recipe.purpose}", highlight=False)
        out.print(f"  {sentence(exchange)}", highlight=False)
        out.print(
            f"  {size(cost.up)} up, {size(cost.down)} down: {share:.3g} of FedAvg's bytes", highlight=False
        )
        options = " ".join(f"--{key.replace('_', '-')} {value}" for key, value in recipe.options.items())
        out.print(f"  {options}", highlight=False)
