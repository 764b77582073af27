"""Does the fast preset cost accuracy on very skewed clients? MNIST, 1,000 clients, groups of 10, several trainings.

    python benchmarks/skewed_training.py --data-dir mnist/ [--skew 0.9] [--models 20] [--only NAME ...]
    python benchmarks/skewed_training.py --votes RUNS/images-q-0.9/votes.npz

Every training has the same groups, initial weights and test images; only rounds, local steps and learning rate differ.
Votes of few models are too coarse to count the images that N = 500 models would certify, so that share is estimated:
the distribution of "share of all models that are right" over the images is fitted to the counts of right votes (its
nonparametric maximum-likelihood estimate), and the chance of enough right votes out of N averaged over it. What the
estimate is worth is measured: on every 20 models of a finished run and on all of them, beside what they certify.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binom

from holdfast.certification import certify_ideal
from holdfast.ensemble import Votes, make_design
from holdfast.experiments.federation import CertifyConfig, load_federation
from holdfast.training import FedAvg, make_trainer, model_factory
from measure import RESULTS, save

TRAININGS = {
    "fast preset": FedAvg(rounds=60, lr=0.1),
    "1 local step": FedAvg(rounds=300, lr=0.1, local_steps=1),
    "1 local step, half as long": FedAvg(rounds=150, lr=0.1, local_steps=1),
    "lr / 2, rounds x 2": FedAvg(rounds=120, lr=0.05),
    "lr / 4, rounds x 4": FedAvg(rounds=240, lr=0.025),
    "twice as long": FedAvg(rounds=120, lr=0.1),
    "1 local step, twice as long": FedAvg(rounds=600, lr=0.1, local_steps=1),
}
M = 10
SIZES = (100, 500)
INPUTS = 10_000
ALPHA = 0.001
SEED = 1


def needed(n_models: int) -> int:
    """The fewest right votes that certify M malicious clients, as published."""
    right = np.arange(n_models // 2 + 1, n_models + 1)
    counts = np.zeros((INPUTS, 10), dtype=np.int64)
    counts[:, 0] = n_models
    counts[: len(right), 0], counts[: len(right), 1] = right, n_models - right
    found = certify_ideal(counts, n=1000, k=10, alpha=ALPHA, method="as-published-ensemble").radius[: len(right)]
    return int(right[found >= M].min())


def expected(right: NDArray[np.int64], n_models: int, size: int, steps: int = 2000) -> float:
    """The share of images that `size` models would certify, from counts `right` [T] of right votes out of n_models."""
    grid = np.linspace(0, 1, 201)
    weights = np.bincount(right, minlength=n_models + 1) / len(right)
    likelihood = binom.pmf(np.arange(n_models + 1)[:, None], n_models, grid)
    mix = np.full(len(grid), 1 / len(grid))
    for _ in range(steps):
        mix = mix * (likelihood.T @ (weights / np.maximum(likelihood @ mix, 1e-300)))
    return float(mix @ binom.sf(needed(size) - 1, size, grid))


def summary(votes: NDArray[Any], labels: NDArray[np.int64]) -> dict[str, Any]:
    """What votes [N, T] say."""
    right = (votes == labels).sum(axis=0)
    winner = np.array([np.bincount(column).argmax() for column in votes.T])
    return {
        "models": len(votes),
        "single_accuracy": float((votes == labels).mean()),
        "vote_accuracy": float((winner == labels).mean()),
        "certified": {str(size): expected(right, len(votes), size) for size in SIZES},
    }


def train(name: str, fedavg: FedAvg, told: argparse.Namespace) -> dict[str, Any]:
    """One training of all groups: how accurate the models are, and what they cost."""
    config = CertifyConfig(data="mnist", data_dir=told.data_dir, clients=1000, skew=told.skew)
    federation = load_federation(config, seed=SEED)
    dataset = federation.dataset
    design = make_design("random", n=1000, k=10, n_models=told.models, seed="skewed training")
    factory = model_factory("cnn", dataset.x_train.shape[1:], dataset.n_labels)
    trainer = make_trainer(
        factory, dataset.x_train, dataset.y_train, federation.partition, fedavg, seed=SEED, threads=told.threads
    )
    ids = list(range(told.models))
    trainer.run(trainer.init([0]), [0], [np.array([0])], rounds=1)  # compiled now, not in the measured time
    began = time.process_time()
    params = trainer.run(trainer.init(ids), ids, [np.flatnonzero(row) for row in design.membership])
    seconds = (time.process_time() - began) / told.models
    votes = trainer.predict(params, dataset.x_test)
    return {
        "training": name,
        **{key: asdict(fedavg)[key] for key in ("rounds", "local_steps", "lr")},
        "distance": fedavg.lr * fedavg.steps,
        "cpu_seconds": seconds,
        **summary(votes, dataset.y_test),
    }


def trial(votes: Votes, models: int) -> dict[str, Any]:
    """The estimate from every few models of a run and from all of them, and what all of them certify in truth."""
    assert votes.labels is not None
    truth = certify_ideal(votes.counts(), n=1000, k=10, alpha=ALPHA, method="as-published-ensemble")
    parts = [votes.votes[first : first + models] for first in range(0, votes.n_models - models + 1, models)]
    return {
        "parts": [summary(part, votes.labels) for part in parts],
        "all": summary(votes.votes, votes.labels),
        "needed": {str(size): needed(size) for size in SIZES},
        "truth": truth.certified_accuracy(votes.labels, M),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-dir", help="folder with the official files; by default the cache")
    parser.add_argument("--skew", type=float, default=0.9)
    parser.add_argument("--models", type=int, default=20)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only", action="append", choices=TRAININGS, help="trainings to measure now; others are kept")
    parser.add_argument("--votes", help="try the estimate on these votes.npz of a run of this setting; trains nothing")
    told = parser.parse_args()
    path = RESULTS / "skewed_training.json"
    kept = json.loads(path.read_text()) if path.exists() else {"rows": []}
    rows = {row["training"]: row for row in kept["rows"]}
    more = {key: value for key, value in kept.items() if key not in ("rows", "machine")} | {"skew": told.skew}
    if told.votes:
        more["trial"] = trial(Votes.load(Path(told.votes)), told.models)
        print(json.dumps(more["trial"], indent=1))
        save("skewed_training", list(rows.values()), **more)
        return
    for name in told.only or TRAININGS:
        rows[name] = row = train(name, TRAININGS[name], told)
        share = ", ".join(f"N = {size}: {100 * value:.1f}%" for size, value in row["certified"].items())
        print(
            f"{name:30} {row['cpu_seconds']:5.1f} CPU-s, one model {100 * row['single_accuracy']:.1f}%, "
            f"vote {100 * row['vote_accuracy']:.1f}%, certified at m = {M}, estimated for {share}",
            flush=True,
        )
        save("skewed_training", [rows[key] for key in TRAININGS if key in rows], **more)


if __name__ == "__main__":
    main()
