"""The same FedAvg rounds by pfl-research. Run by `training_rounds.py` in an environment that has it."""

from __future__ import annotations

import argparse
from importlib.metadata import version

import torch
from pfl.aggregate.simulate import SimulatedBackend
from pfl.algorithm.base import NNAlgorithmParams
from pfl.algorithm.federated_averaging import FederatedAveraging
from pfl.callback.base import TrainingProcessCallback
from pfl.data.dataset import Dataset
from pfl.data.federated_dataset import FederatedDataset
from pfl.data.sampling import get_user_sampler
from pfl.hyperparam import NNTrainHyperParams
from pfl.metrics import Metrics
from pfl.model.pytorch import PyTorchModel
from rounds_task import BATCH, CLIENTS, LR, NETWORKS, STEPS, Clock, client_data, report

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("network", choices=NETWORKS)
parser.add_argument("--rounds", type=int, required=True)
parser.add_argument("--warm-up", type=int, default=2)
arguments = parser.parse_args()
torch.set_num_threads(1)


class Network(torch.nn.Module):
    """The network with the two methods that pfl asks for."""

    def __init__(self) -> None:
        super().__init__()
        self.body = NETWORKS[arguments.network][0]()

    def loss(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Cross-entropy."""
        self.train()
        return torch.nn.functional.cross_entropy(self.body(x), y)

    def metrics(self, x: torch.Tensor, y: torch.Tensor) -> dict:
        """Nothing is evaluated here."""
        return {}


class Timer(TrainingProcessCallback):
    """A clock from the end of the warm-up to the last round."""

    def __init__(self) -> None:
        self.clock = Clock()

    def after_central_iteration(self, aggregate_metrics, model, *, central_iteration):  # type: ignore[no-untyped-def]
        """Called with the iteration just done, from 0."""
        done = central_iteration + 1
        if done == arguments.warm_up:
            self.clock.start()
        if done == arguments.warm_up + arguments.rounds:
            self.clock.stop()
            facts = f"pfl {version('pfl')}, torch {torch.__version__}"
            report(arguments.rounds, self.clock, version=facts)
        return False, Metrics()


data = {client: client_data(arguments.network, client) for client in range(CLIENTS)}
users = FederatedDataset(lambda user: Dataset(raw_data=data[user]), get_user_sampler("minimize_reuse", list(data)))
network = Network()
model = PyTorchModel(
    model=network,
    local_optimizer_create=torch.optim.SGD,
    central_optimizer=torch.optim.SGD(network.parameters(), lr=1.0),
)
algorithm = FederatedAveraging()
algorithm.run(
    algorithm_params=NNAlgorithmParams(
        central_num_iterations=arguments.warm_up + arguments.rounds,
        evaluation_frequency=10**9,
        train_cohort_size=CLIENTS,
        val_cohort_size=0,
    ),
    backend=SimulatedBackend(training_data=users, val_data=users),
    model=model,
    model_train_params=NNTrainHyperParams(
        local_num_epochs=None, local_num_steps=STEPS, local_learning_rate=LR, local_batch_size=BATCH
    ),
    callbacks=[Timer()],
)
