"""Poison the training data within the certified radius, knowing everything: certified predictions stand.

All selections of tiny data sets are trained and every poisoning of a whole pool is tried, for each scheme and with
every mixture of insertions, deletions and modifications; larger sets are attacked with what hurts most, and the vote
over all their selections is estimated afresh.
"""

from fractions import Fraction
from functools import cache
from itertools import combinations, product

import numpy as np
import pytest

from holdfast.certification import certify_deployed, certify_ideal, radius, winner_pvalue
from holdfast.data import load
from holdfast.ensemble import make_design
from holdfast.experiments.trusted import only_classes
from holdfast.training import make_trainer, model_factory
from holdfast.training.selection import selection_rows, sgd

# Points on a line with a label; the pool of what an attacker may write has wrong labels, outliers and copies.
CLEAN = [(-3.0, 0), (-2.5, 0), (-2.0, 0), (-1.0, 0), (1.5, 1), (2.0, 1), (3.0, 1)]
POOL = [(-2.2, 1), (2.2, 0), (0.1, 0), (9.0, 1)]
INPUTS = [-2.4, -0.6, 0.4, 2.5]


@cache
def nearest_mean(examples):
    """A base classifier that is a function of its examples alone: the nearer class mean, ties to label 0."""
    means = {label: [x for x, y in examples if y == label] for label in (0, 1)}
    known = {label: sum(xs) / len(xs) for label, xs in means.items() if xs} or {0: 0.0}  # nothing selected: label 0
    return [min(known, key=lambda label: (abs(x - known[label]), label)) for x in INPUTS]


def all_votes(examples, k):
    votes = np.array([nearest_mean(chosen) for chosen in combinations(examples, k)])
    return np.stack([(votes == label).sum(axis=0) for label in (0, 1)], axis=1)


def lead_of_label_1(scheme, examples, k, p):
    """p_1 - p_0 for every input, exactly, over all selections that the scheme can draw."""
    n = len(examples)
    if scheme == "binomial":
        drawn = ((chosen, p ** len(chosen) * (1 - p) ** (n - len(chosen))) for chosen in subsets(examples))
    else:
        every = list(combinations(examples, k) if scheme == "without" else product(examples, repeat=k))
        drawn = ((tuple(sorted(chosen)), Fraction(1, len(every))) for chosen in every)
    lead = [Fraction(0)] * len(INPUTS)
    for chosen, probability in drawn:
        for at, label in enumerate(nearest_mean(chosen)):
            lead[at] += probability if label else -probability
    return lead


def subsets(examples):
    for size in range(len(examples) + 1):
        yield from combinations(examples, size)


ACTIONS = {"P1": "i", "P2": "d", "P3": "m", "P4": "im", "P5": "dm", "P6": "idm"}


def poisonings(kind, rho):
    """Every data set that an attacker can leave with up to rho actions of a kind."""
    allowed = ACTIONS[kind]
    for inserted, deleted, modified in product(range(rho + 1), repeat=3):
        used = {"i": inserted, "d": deleted, "m": modified}
        if sum(used.values()) > rho or any(count and action not in allowed for action, count in used.items()):
            continue
        for gone in combinations(range(len(CLEAN)), deleted):
            left = [example for row, example in enumerate(CLEAN) if row not in gone]
            for rows in combinations(range(len(left)), modified):
                for new in product(POOL, repeat=modified + inserted):
                    changed = list(left)
                    for row, example in zip(rows, new, strict=False):
                        changed[row] = example
                    yield [*changed, *new[modified:]]


def test_the_attacker_of_the_tests_can_do_all_that_is_allowed():
    n, pool = len(CLEAN), len(POOL)
    sizes = {"P1": 1 + pool, "P2": 1 + n, "P3": 1 + n * pool, "P4": 1 + pool + n * pool, "P6": 1 + pool + n + n * pool}
    assert {kind: len(list(poisonings(kind, 1))) for kind in sizes} == sizes
    assert {len(examples) for examples in poisonings("P6", 2)} == set(range(n - 2, n + 3))


@pytest.mark.parametrize("k", [2, 3])
@pytest.mark.parametrize("kind", ["P1", "P2", "P3", "P6"])
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


@pytest.mark.parametrize("kind", sorted(ACTIONS))
@pytest.mark.parametrize("scheme", ["without", "with", "binomial"])
def test_no_poisoning_of_a_tiny_set_beats_any_scheme(scheme, kind):
    k = 2
    p = Fraction(k, len(CLEAN))  # fixed beforehand: what the attacker adds or takes does not move it
    lead = lead_of_label_1(scheme, CLEAN, k, p)
    winners = [gap > 0 for gap in lead]
    # Label 0 wins ties, so a lead of label 0 needs no strict inequality; the certificate asks for one all the same.
    certified = [radius(scheme, kind, len(CLEAN), k, abs(gap)) if gap else 0 for gap in lead]
    assert max(certified) >= 1
    broken = False
    for rho in (1, 2):
        for examples in poisonings(kind, rho):
            for gap, winner, sure in zip(lead_of_label_1(scheme, examples, k, p), winners, certified, strict=True):
                assert (gap > 0) == winner or sure < rho, (examples, certified)
                broken |= (gap > 0) != winner
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


def poison(x, y, kind, rho):
    """What hurts most: all actions against label 1, so that the damage adds up; P6 divides them among the three."""
    shares = {"P1": (rho, 0, 0), "P2": (0, rho, 0), "P3": (0, 0, rho), "P6": (rho // 3, rho // 3, rho - 2 * (rho // 3))}
    inserted, deleted, modified = shares[kind]
    ones = np.flatnonzero(y == 1)
    lies = y.copy()
    lies[ones[:modified]] = 0
    gone, copied = ones[modified : modified + deleted], ones[-inserted:] if inserted else ones[:0]
    kept = np.setdiff1d(np.arange(len(y)), gone)
    return np.concatenate([x[kept], x[copied]]), np.concatenate([lies[kept], np.zeros(inserted, dtype=y.dtype)])


@pytest.mark.parametrize(
    ("kind", "scheme"),
    [
        ("P1", "random"),
        ("P2", "random"),
        ("P3", "replacement"),
        ("P1", "replacement"),
        ("P6", "random"),
        ("P6", "replacement"),
        ("P1", "binomial"),
        ("P6", "binomial"),
    ],
)
def test_no_attack_moves_the_estimated_vote_of_certified_inputs(pair, kind, scheme):
    n, k, models = 120, 4, 300
    x, y, x_test = pair.x_train[:n], pair.y_train[:n], pair.x_test
    size = {"p": Fraction(k, n)} if scheme == "binomial" else {"k": k}
    design = make_design(scheme, n=n, n_models=models, seed="drawn before", **size)
    votes = train(x, y, [design.draws(j) for j in range(models)], x_test, 1)
    counts = np.stack([(votes == label).sum(axis=0) for label in (0, 1)], axis=1)
    named = {"random": "without", "replacement": "with", "binomial": "binomial"}[scheme]
    certificate = certify_ideal(counts, n=n, k=k, alpha=0.001, scheme=named, poisoning=kind, kind="data")
    rho = int(np.median(certificate.radius[certificate.radius > 0]))
    assert rho >= 3
    bad_x, bad_y = poison(x, y, kind, rho)
    assert len(bad_y) == n + {"P1": rho, "P2": -rho}.get(kind, 0)
    fresh = make_design(scheme, n=len(bad_y), n_models=models, seed="drawn after", **size)
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
