"""digitsapp: A Flower / PyTorch app."""

import torch
from flwr.app import ArrayRecord, Context, MetricRecord
from flwr.serverapp import Grid, ServerApp

from digitsapp.task import Net, load_centralized_dataset, test
from wash_fl import WashStrategy, model_layout

# Create ServerApp
app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run the server's part of the app."""
    # Read run config
    members: int = context.run_config["members"]
    steps: int = context.run_config["local-steps"]
    num_rounds: int = context.run_config["num-server-rounds"]

    # Load global model
    global_model = Net()
    arrays = ArrayRecord(global_model.state_dict())

    # Initialize strategy
    strategy = WashStrategy(model_layout(global_model), members=members, local_steps=steps, evaluate_every=1)

    # Start strategy, run it for `num_rounds`
    result = strategy.start(
        grid=grid,
        initial_arrays=arrays,
        num_rounds=num_rounds,
        evaluate_fn=global_evaluate,
    )
    accuracy = result.evaluate_metrics_serverapp[num_rounds]["accuracy"]
    print(f"test accuracy of the final model: {accuracy:.2%}")


def global_evaluate(server_round: int, arrays: ArrayRecord) -> MetricRecord:
    """Evaluate model on central data."""
    # Load the model and initialize it with the received weights
    model = Net()
    model.load_state_dict(arrays.to_torch_state_dict())
    device = torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    model.to(device)

    # Evaluate the global model on the test set
    return MetricRecord(test(model, load_centralized_dataset(), device))
