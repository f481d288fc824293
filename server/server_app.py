"""The ServerApp that `flwr run .` loads: the whole job, configured by the run's options."""

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from wash_fl.config import RunConfig
from wash_fl.runs.job import run_job

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Train an ensemble on the connected clients, and export it as one model."""
    run_job(grid, RunConfig.from_mapping(context.run_config))
