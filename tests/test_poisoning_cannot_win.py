"""Poison the training data within the certified radius, knowing everything: certified predictions stand.

All selections of tiny data sets are trained and every poisoning of a whole pool is tried; larger ones are attacked with
what hurts most, and the vote over all their selections is estimated afresh.
"""

from itertools import combinations, product

import numpy as np
import pytest

from holdfast.certification import certify_deployed, certify_ideal, winner_pvalue
from holdfast.data import load
from holdfast.ensemble import make_design
from holdfast.experiments.trusted import only_classes
from holdfast.training import make_trainer, model_factory
from holdfast.training.selection import selection_rows, sgd

# Points on a line with a label; the pool of what an attacker may write has wrong labels, outliers and copies.
CLEAN = [(-3.0, 0), (-2.5, 0), (-2.0, 0), (-1.0, 0), (1.5, 1), (2.0, 1), (3.0, 1)]
POOL = [(-2.2, 1), (2.2, 0), (0.1, 0), (9.0, 1)]
INPUTS = [-2.4, -0.6, 0.4, 2.5]


def nearest_mean(examples):
    """A base classifier that is a function of its examples alone: the nearer class mean, ties to label 0."""
    means = {label: [x for x, y in examples if y == label] for label in (0, 1)}
    known = {label: sum(xs) / len(xs) for label, xs in means.items() if xs}
    return [min(known, key=lambda label: (abs(x - known[label]), label)) for x in INPUTS]


def all_votes(examples, k):
    votes = np.array([nearest_mean(chosen) for chosen in combinations(examples, k)])
    return np.stack([(votes == label).sum(axis=0) for label in (0, 1)], axis=1)


def poisonings(kind, rho):
    """Every data set that an attacker can leave with up to rho actions of a kind."""
    n = len(CLEAN)
    if kind == "P1":
        for count in range(rho + 1):
            for new in product(POOL, repeat=count):
                yield [*CLEAN, *new]
        return
    for count in range(rho + 1):
        for rows in combinations(range(n), count):
            kept = [example for row, example in enumerate(CLEAN) if row not in rows]
            if kind == "P2":
                yield kept
                continue
            for new in product(POOL, repeat=count):
                replaced = list(CLEAN)
                for row, example in zip(rows, new, strict=True):
                    replaced[row] = example
                yield replaced


@pytest.mark.parametrize("k", [2, 3])
@pytest.mark.parametrize("kind", ["P1", "P2", "P3"])
def test_no_poisoning_of_a_tiny_set_beats_the_exhaustive_certificate(kind, k):
    counts = all_votes(CLEAN, k)
    told = {"k": k, "alpha": 0.01, "exhaustive": True, "kind": "data"}
    certificate = certify_ideal(counts, n=len(CLEAN), poisoning=kind, **told)
    assert certificate.max_radius >= 1
    broken = 0
    for rho in range(1, 3):
        sure = certificate.radius >= rho
        for examples in poisonings(kind, rho):
            poisoned = all_votes(examples, k)
            winners = poisoned.argmax(axis=1)
            np.testing.assert_array_equal(winners[sure], certificate.prediction[sure])
            broken += bool((winners != certificate.prediction).any())
            # The defender's side: from the poisoned votes alone, whatever is certified is the clean winner.
            seen = certify_ideal(poisoned, n=len(examples), poisoning=kind, perspective="observed", **told)
            trusted = seen.radius >= rho
            np.testing.assert_array_equal(seen.prediction[trusted], counts.argmax(axis=1)[trusted])
    assert broken, "the attacks did nothing, so the test shows nothing"


@pytest.fixture(scope="module")
def pair():
    return only_classes(load("digits"), ("1", "7"))


def train(x, y, selections, x_test, seed):
    """The library's own base classifiers, one per selection."""
    settings = sgd(steps=20, batch_size=16, lr=0.1)
    rows = selection_rows(selections, y, least=64, draws=320, seed=seed)
    trainer = make_trainer(model_factory("logistic", x.shape[1:], 2), x, y, rows, settings, seed=seed)
    ids = range(len(selections))
    return trainer.predict(trainer.run(trainer.init(ids), ids, [np.array([j]) for j in ids]), x_test)


def test_no_relabeling_beats_the_certificate_of_all_trained_selections(pair):
    n, k = 9, 2
    x, y, x_test = pair.x_train[:n], pair.y_train[:n], pair.x_test
    design = make_design("exhaustive", n=n, k=k, seed=1)
    selections = [design.draws(model) for model in range(design.n_models)]
    votes = train(x, y, selections, x_test, 4)
    counts = np.stack([(votes == label).sum(axis=0) for label in (0, 1)], axis=1)
    ideal = certify_ideal(counts, n=n, k=k, alpha=0.01, exhaustive=True, kind="data")
    deployed = certify_deployed(votes, design.membership, 2, bound="exact")
    assert ideal.max_radius >= 1
    assert (deployed.radius >= ideal.radius).all()  # it knows which selections vote for whom
    changed = False
    for rho in range(1, ideal.max_radius + 1):
        for rows in combinations(range(n), rho):
            poisoned = y.copy()
            poisoned[list(rows)] = 1 - y[list(rows)]
            attacked = train(x, poisoned, selections, x_test, 4)
            hit = design.membership[:, rows].any(axis=1)
            np.testing.assert_array_equal(attacked[~hit], votes[~hit])
            winners = (2 * attacked.sum(axis=0, dtype=np.int64) > len(attacked)).astype(int)
            for certificate in (ideal, deployed):
                sure = certificate.radius >= rho
                np.testing.assert_array_equal(winners[sure], certificate.prediction[sure])
            changed |= bool((attacked != votes).any())
    assert changed


@pytest.mark.parametrize(("kind", "scheme"), [("P3", "replacement"), ("P2", "random"), ("P1", "random")])
def test_no_attack_moves_the_estimated_vote_of_certified_inputs(pair, kind, scheme):
    n, k, models = 120, 4, 300
    x, y, x_test = pair.x_train[:n], pair.y_train[:n], pair.x_test
    design = make_design(scheme, n=n, k=k, n_models=models, seed="drawn before")
    votes = train(x, y, [design.draws(j) for j in range(models)], x_test, 1)
    counts = np.stack([(votes == label).sum(axis=0) for label in (0, 1)], axis=1)
    told = {"n": n, "k": k, "alpha": 0.001, "scheme": "with" if scheme == "replacement" else "without"}
    certificate = certify_ideal(counts, poisoning=kind, kind="data", **told)
    rho = int(np.median(certificate.radius[certificate.radius > 0]))
    assert rho >= 2
    victims = np.flatnonzero(y == 1)[:rho]  # always against one class, so that the damage adds up
    bad_x, bad_y = x.copy(), y.copy()
    if kind == "P3":
        bad_y[victims] = 0
    elif kind == "P2":
        bad_x, bad_y = np.delete(x, victims, axis=0), np.delete(y, victims)
    else:
        bad_x, bad_y = np.concatenate([x, x[victims]]), np.concatenate([y, np.zeros(rho, dtype=y.dtype)])
    fresh = make_design(scheme, n=len(bad_y), k=k, n_models=models, seed="drawn after")
    attacked = train(bad_x, bad_y, [fresh.draws(j) for j in range(models)], x_test, 2)
    ones = attacked.sum(axis=0, dtype=np.int64)
    sure = np.flatnonzero(certificate.radius >= rho)
    assert len(sure)
    for at in sure:
        mine, other = (ones[at], models - ones[at]) if certificate.prediction[at] else (models - ones[at], ones[at])
        # A loss so clear that chance cannot explain it would break the certificate.
        assert mine >= other or winner_pvalue(int(other), int(mine)) > 1e-6
    changed = (ones / models) - counts[:, 1] / models
    assert np.abs(changed).max() > 0.01, "the attack did nothing, so the test shows nothing"
