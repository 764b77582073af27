"""A synthetic but realistic report: random votes, honest radii, real digits. No training, a fraction of a second."""

from dataclasses import dataclass, replace

import numpy as np
from sklearn.datasets import load_digits

from holdfast.report import CertifyReport, Example, summarize

N_LABELS = 10


@dataclass(frozen=True)
class Radii:
    """Stands in for a certificate: the fields that the report reads."""

    kind: str
    prediction: np.ndarray
    radius: np.ndarray
    alpha: float
    method: str
    assumptions: tuple[str, ...]


INDEPENDENT = "Each model was trained on its own group only: nothing computed from clients is shared between groups."
ROSTER = "The malicious clients are among the 1,000 enrolled ones, one identity per participant."
SECRET = "The grouping was drawn from a seed that no client knew when it chose to misbehave."


def votes_for(images: np.ndarray, labels: np.ndarray, n_models: int, sharpness: float, seed: int) -> np.ndarray:
    """Vote counts [T, L]: most models right, hard inputs split with one confusable rival."""
    rng = np.random.default_rng(seed)
    ease = rng.beta(sharpness, 0.9, size=len(labels))
    rival = (labels + rng.integers(1, N_LABELS, size=len(labels))) % N_LABELS
    shares = np.full((len(labels), N_LABELS), 0.01)
    rows = np.arange(len(labels))
    shares[rows, rival] += 0.9 * (1 - ease)
    shares[rows, labels] += 0.9 * ease
    shares /= shares.sum(axis=1, keepdims=True)
    return np.stack([rng.multinomial(n_models, p) for p in shares])


def radii(counts: np.ndarray, per_client: int, floor: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Winner and floor((N_y - max_z (N_z + [z < y])) / (2 r)), -1 below `floor`."""
    winner = counts.argmax(axis=1)
    rivals = counts + (np.arange(N_LABELS)[None, :] < winner[:, None])
    rivals[np.arange(len(counts)), winner] = -1
    margin = counts.max(axis=1) - rivals.max(axis=1)
    radius = margin // (2 * per_client)
    lost = margin < floor
    return np.where(lost, -1, winner), np.where(lost, -1, radius)


def example_report(
    n_inputs: int = 1000, *, images: bool = True, labeled: bool = True, designs: int = 1
) -> CertifyReport:
    data = load_digits()
    pick = np.random.default_rng(0).permutation(len(data.target))[:n_inputs]
    x, y = data.images[pick], data.target[pick]
    kinds = []
    names = ("5 partitions, groups of 10", "disjoint groups of 10", "disjoint groups of 4")
    for d, (design, n_models, r) in enumerate(zip(names, (500, 100, 250), (5, 1, 1), strict=True)):
        if d >= designs:
            break
        counts = votes_for(x, y, n_models, 6.0 - d, seed=d)
        prediction, radius = radii(counts, r)
        truth = y if labeled else None
        deployed = Radii("deployed", prediction, radius, 0.0, "degree bound", (INDEPENDENT, ROSTER))
        secret = replace(
            deployed,
            kind="secret",
            radius=(radius * 1.22).astype(int),
            alpha=0.001,
            method="touched groups",
            assumptions=(INDEPENDENT, ROSTER, SECRET),
        )
        kinds += [summarize(c, truth, design=design, n_models=n_models) for c in (deployed, secret)]
        if d == 0:
            prediction0, radius0, counts0 = prediction, radius, counts
            ideal_prediction, ideal_radius = radii(counts, r, floor=40)
            scaled = np.where(ideal_radius < 0, -1, (60 * (ideal_radius.clip(0) / 50) ** 1.4).astype(int))
            ideal = Radii("ideal", ideal_prediction, scaled, 0.001, "rank-verified", (INDEPENDENT,))
            kinds.append(
                summarize(ideal, truth, design="500 random groups of 10" if designs > 1 else design, n_models=500)
            )
    order = np.argsort(radius0, kind="stable")
    chosen = [*order[:6], *order[-6:]]
    examples = tuple(
        Example(
            index=int(i),
            prediction=str(prediction0[i]),
            label=str(y[i]) if labeled else None,
            radius=int(radius0[i]),
            image=x[i] if images else None,
            votes=tuple((str(z), int(counts0[i, z])) for z in np.argsort(-counts0[i])[:3]),
        )
        for i in chosen
    )
    return CertifyReport(
        title="Certified ensemble on digits",
        dataset="digits",
        n_clients=1000,
        n_models=500,
        kinds=tuple(kinds),
        clean_accuracy_single_fedavg=0.981 if labeled else None,
        trusted_only_accuracy=0.742 if labeled else None,
        examples=examples,
        config={"dataset": "digits", "clients": 1000, "group_size": 10, "preset": "fast", "alpha": 0.001, "q": 0.5},
        hashes={"votes.npz": "9f2c" * 16, "certificates.parquet": "01ab" * 16},
        versions={"holdfast": "0.1.0", "python": "3.11.7", "numpy": "2.3.4", "torch": "2.13.0"},
        timings={"partition": 0.2, "train": 1312.4, "vote": 41.0, "certify": 3.1},
        seed_commitment="c0ffee" * 10 + "0123",
        run="runs/digits-1",
        command="holdfast certify digits --clients 1000 --group-size 10 --out runs/digits-1",
    )
