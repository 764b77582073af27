"""Small federations and a FedAvg written the plain way, for the tests of training."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from holdfast.training import FedAvg
from holdfast.training.batches import batch_rows
from holdfast.training.parameters import flatten, unflatten

OPTIMIZERS = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam}


@dataclass(frozen=True)
class Rows:
    """A partition in its simplest form."""

    offsets: np.ndarray
    indices: np.ndarray


def federation(shape=(6,), n_labels=3, n_clients=5, seed=0):
    """Learnable data of `n_clients` clients with different numbers of rows."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(3, 12, n_clients)
    y = rng.integers(0, n_labels, sizes.sum())
    x = rng.normal(size=(len(y), *shape)).astype(np.float32)
    x += y.reshape(-1, *[1] * len(shape)).astype(np.float32)
    rows = Rows(np.concatenate([[0], np.cumsum(sizes)]), rng.permutation(len(y)))
    return x, y, rows


def plain_fedavg(factory, x, y, rows, fedavg: FedAvg, *, seed, params, model_ids, members, rounds=None, start_round=0):
    """FedAvg with modules, `torch.optim` and loops over everything; nothing is shared with the engines."""
    module = factory()
    result = []
    for vector, model, clients in zip(params, model_ids, members, strict=True):
        for number in range(start_round, start_round + (fedavg.rounds if rounds is None else rounds)):
            locals_, sizes = [], []
            for client in clients:
                batches = client_batches(rows, fedavg, seed=seed, model=model, client=client, number=number)
                unflatten(vector, module).train()
                optimizer = OPTIMIZERS[fedavg.optimizer](module.parameters(), lr=fedavg.lr)
                for batch in batches:
                    optimizer.zero_grad()
                    scores = module(torch.from_numpy(x[batch]))
                    nn.functional.cross_entropy(scores, torch.from_numpy(y[batch])).backward()
                    optimizer.step()
                locals_.append(flatten(module).astype(np.float64))
                sizes.append(len(rows.indices[rows.offsets[client] : rows.offsets[client + 1]]))
            weights = np.array(sizes) if fedavg.weighting == "size" else np.ones(len(sizes))
            vector = np.average(locals_, axis=0, weights=weights).astype(np.float32)
        result.append(vector)
    return np.stack(result)


def client_batches(rows, fedavg: FedAvg, *, seed, model, client, number):
    """The rows of one client's steps in one round `[steps, batch]`."""
    at = (seed, [model], [client], number, rows.offsets, rows.indices, fedavg.local_steps, fedavg.batch_size)
    return batch_rows(*at)[0]
