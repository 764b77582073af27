"""The same FedAvg rounds by Flower's simulation. Run by `training_rounds.py` in an environment that has Flower."""

from __future__ import annotations

import argparse
from collections.abc import Iterable

import flwr
import torch
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg
from flwr.simulation import run_simulation
from rounds_task import BATCH, CLIENTS, LR, NETWORKS, STEPS, Clock, client_data, report

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("network", choices=NETWORKS)
parser.add_argument("--rounds", type=int, required=True)
parser.add_argument("--warm-up", type=int, default=3)
arguments = parser.parse_args()

client_app, server_app = ClientApp(), ServerApp()
network_name = arguments.network
clock = Clock()
kept: dict[object, object] = {}


@client_app.train()
def train(message: Message, context: Context) -> Message:
    """Local SGD, as in Flower's own PyTorch examples; data and module stay with the actor between rounds."""
    torch.set_num_threads(1)
    client = int(context.node_config["partition-id"])
    if client not in kept:
        kept[client] = client_data(network_name, client)
        kept.setdefault("module", NETWORKS[network_name][0]())
    (x, y), module = kept[client], kept["module"]
    module.load_state_dict(message.content["arrays"].to_torch_state_dict())
    optimizer = torch.optim.SGD(module.parameters(), lr=LR)
    for rows in torch.randint(len(x), (STEPS, BATCH)):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(module(x[rows]), y[rows]).backward()
        optimizer.step()
    metrics = MetricRecord({"num-examples": len(x)})
    return Message(RecordDict({"arrays": ArrayRecord(module.state_dict()), "metrics": metrics}), reply_to=message)


class TimedFedAvg(FedAvg):
    """Flower's FedAvg, with a clock from the end of the warm-up to the last aggregation."""

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Start the clock when the warm-up is over."""
        if server_round == arguments.warm_up + 1:
            clock.start()
        return super().configure_train(server_round, arrays, config, grid)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Stop the clock after the last round, and say so if a client did not answer."""
        replies = list(replies)
        failed = [reply for reply in replies if reply.has_error()]
        if len(replies) != CLIENTS or failed:
            raise RuntimeError(f"{len(replies)} of {CLIENTS} clients answered, {len(failed)} of them with an error")
        result = super().aggregate_train(server_round, replies)
        if server_round == arguments.warm_up + arguments.rounds:
            clock.stop()
            report(arguments.rounds, clock, version=f"flwr {flwr.__version__}, torch {torch.__version__}")
        return result


@server_app.main()
def main(grid: Grid, context: Context) -> None:
    """All clients in every round, no evaluation."""
    strategy = TimedFedAvg(
        fraction_train=1.0, fraction_evaluate=0.0, min_train_nodes=CLIENTS, min_available_nodes=CLIENTS
    )
    start = ArrayRecord(NETWORKS[network_name][0]().state_dict())
    strategy.start(grid, start, num_rounds=arguments.warm_up + arguments.rounds)


run_simulation(
    server_app,
    client_app,
    num_supernodes=CLIENTS,
    backend_config={"client_resources": {"num_cpus": 1, "num_gpus": 0}},
)
