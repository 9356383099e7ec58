"""Flower's simulation of many clients that train one small network: ``python flower.py CLIENTS ROUNDS LAYERS WIDTH SAMPLES``.

Runs in an environment of its own, that has Flower and borrows torch and scikit-learn; so nothing of this package is imported.
Prints one JSON object: seconds between two rounds' ends, and the loss at each.
"""

import importlib
import json
import sys
import time
from collections.abc import Sequence
from itertools import pairwise
from typing import Any


def main() -> None:
    """Simulate and print."""
    clients, rounds, layers, width, samples = (int(argument) for argument in sys.argv[1:6])
    client, server, simulation, common = (
        importlib.import_module(f"flwr.{name}") for name in ("client", "server", "simulation", "common")
    )
    ended: list[float] = []
    losses: list[float] = []

    def evaluate(number: int, parameters: Any, config: Any) -> tuple[float, dict[str, Any]]:
        ended.append(time.perf_counter())
        losses.append(loss_of(parameters, layers, width))
        return losses[-1], {}

    class Client(client.NumPyClient):  # type: ignore[misc, name-defined]
        """One step of SGD on a batch of its own, as a worker of ours makes a round."""

        def fit(self, parameters: Any, config: Any) -> tuple[Any, int, dict[str, Any]]:
            return step(parameters, layers, width, samples), samples, {}

    def server_of(context: Any) -> Any:
        start = common.ndarrays_to_parameters(weights_of(network(layers, width)))
        strategy = server.strategy.FedAvg(
            fraction_fit=1.0,
            fraction_evaluate=0.0,
            min_fit_clients=clients,
            min_available_clients=clients,
            initial_parameters=start,
            evaluate_fn=evaluate,
        )
        return server.ServerAppComponents(strategy=strategy, config=server.ServerConfig(num_rounds=rounds))

    simulation.run_simulation(
        server_app=server.ServerApp(server_fn=server_of),
        client_app=client.ClientApp(client_fn=lambda context: Client().to_client()),
        num_supernodes=clients,
        backend_config={"client_resources": {"num_cpus": 1, "num_gpus": 0.0}},
    )
    print(json.dumps({"seconds": [after - before for before, after in pairwise(ended)], "losses": losses}))


def network(layers: int, width: int) -> Any:
    """Return the network, with the same weights in every process."""
    torch = importlib.import_module("torch")
    torch.set_num_threads(1)
    torch.manual_seed(0)
    sizes = [64, *[width] * (layers - 1), 10]
    parts: list[Any] = []
    for a, b in pairwise(sizes):
        parts += [torch.nn.Linear(a, b), torch.nn.ReLU()]
    return torch.nn.Sequential(*parts[:-1])


def weights_of(model: Any) -> list[Any]:
    """Return the arrays that travel."""
    return [value.detach().numpy() for value in model.parameters()]


def loaded(parameters: Sequence[Any], layers: int, width: int) -> Any:
    """Return the network with these weights."""
    torch = importlib.import_module("torch")
    model = network(layers, width)
    with torch.no_grad():
        for value, array in zip(model.parameters(), parameters, strict=True):
            value.copy_(torch.from_numpy(array))
    return model


def batch(samples: int | None) -> tuple[Any, Any]:
    """Return that many digits, drawn anew; None: the first 200."""
    torch, datasets = importlib.import_module("torch"), importlib.import_module("sklearn.datasets")
    digits = datasets.load_digits()
    drawn = torch.randperm(len(digits.target), generator=torch.Generator().manual_seed(time.time_ns() % 2**31))
    rows = torch.arange(200).numpy() if samples is None else drawn[:samples].numpy()
    return torch.from_numpy((digits.data[rows] / 16).astype("float32")), torch.from_numpy(digits.target[rows])


def step(parameters: Sequence[Any], layers: int, width: int, samples: int) -> list[Any]:
    """Return the weights after one step of SGD."""
    torch = importlib.import_module("torch")
    model = loaded(parameters, layers, width)
    inputs, targets = batch(samples)
    torch.nn.functional.cross_entropy(model(inputs), targets).backward()
    torch.optim.SGD(model.parameters(), lr=0.1).step()
    return weights_of(model)


def loss_of(parameters: Sequence[Any], layers: int, width: int) -> float:
    """Return the loss over 200 digits, in nats."""
    torch = importlib.import_module("torch")
    inputs, targets = batch(None)
    with torch.no_grad():
        return float(torch.nn.functional.cross_entropy(loaded(parameters, layers, width)(inputs), targets))


if __name__ == "__main__":
    main()
