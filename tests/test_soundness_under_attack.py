"""A real attack cannot beat a certificate: federations are trained with malicious clients and the labels stand."""

import numpy as np
import pytest

from holdfast import data
from holdfast.attacks import make
from holdfast.certification import certify_deployed, certify_secret
from holdfast.ensemble import make_design
from holdfast.training import FedAvg, make_trainer, model_factory

N, K = 24, 2
SETTINGS = FedAvg(rounds=8, lr=0.2, local_steps=3)


@pytest.fixture(scope="module")
def federation():
    digits = data.load("digits")
    partition = data.partition("iid", digits.y_train, n=N, seed=5)
    return digits, partition


def train(federation, design, y, intervene=None):
    digits, partition = federation
    factory = model_factory("logistic", digits.x_train.shape[1:], 10)
    trainer = make_trainer(factory, digits.x_train, y, partition, SETTINGS, seed=11, engine="torch")
    members = [design.members(model) for model in range(design.n_models)]
    params = trainer.run(
        trainer.init(range(design.n_models)), list(range(design.n_models)), members, intervene=intervene
    )
    return trainer.predict(params, digits.x_test)


def worst_clients(design, votes, certificate, m):
    """The m clients whose models back the winners of the narrowest certified inputs."""
    narrow = np.argsort(np.where(certificate.radius >= m, certificate.radius, N))[:40]
    backing = (votes[:, narrow] == certificate.prediction[narrow]).sum(axis=1)
    chosen: list[int] = []
    for model in np.argsort(-backing):
        free = [c for c in design.members(model) if c not in chosen]
        if len(chosen) < m and not set(design.members(model)) & set(chosen):
            chosen.append(int(free[0]))
    return np.array(chosen[:m])


def flip_labels(federation, malicious):
    digits, partition = federation
    y = digits.y_train.copy()
    for client in malicious:
        rows = partition.rows(client)
        _, y[rows] = make("all-label-flip", n_labels=10)(digits.x_train[rows], y[rows], np.random.default_rng(client))
    return y


def random_updates(malicious):
    rng = np.random.default_rng(3)

    def intervene(model, round_number, clients, updates, start):
        bad = np.isin(clients, malicious)
        if not bad.any():
            return None
        sent = updates.copy()
        sent[bad] = rng.normal(0, 50, sent[bad].shape)
        return start + sent.mean(axis=0)

    return intervene


def replace_model(malicious, wanted):
    def intervene(model, round_number, clients, updates, start):
        bad = np.isin(clients, malicious)
        if not bad.any():
            return None
        sent = updates.copy()
        sent[bad] = (len(clients) * (wanted - start) - sent[~bad].sum(axis=0)) / bad.sum()
        return start + sent.mean(axis=0)

    return intervene


@pytest.mark.parametrize(("kind", "models"), [("disjoint", 12), ("partitions", 24)])
@pytest.mark.parametrize("attack", ["label-flip", "random-update", "model-replacement"])
def test_no_attack_changes_a_certified_prediction(federation, kind, models, attack):
    digits, _ = federation
    design = make_design(kind, n=N, k=K, n_models=models, seed="soundness under attack")
    votes = train(federation, design, digits.y_train)
    clean = certify_deployed(votes, design.membership, 10)
    changed_anything = False
    for m in (1, 2, 4):
        malicious = worst_clients(design, votes, clean, m)
        y, intervene = digits.y_train, None
        if attack == "label-flip":
            y = flip_labels(federation, malicious)
        elif attack == "random-update":
            intervene = random_updates(malicious)
        else:
            n_params = 64 * 10 + 10
            always_zero = np.zeros(n_params, np.float32)
            always_zero[-10] = 30
            intervene = replace_model(malicious, always_zero)
        attacked = train(federation, design, y, intervene)
        hit = design.membership[:, malicious].any(axis=1)
        np.testing.assert_array_equal(attacked[~hit], votes[~hit])  # a group without malicious clients is untouched
        changed_anything |= bool((attacked[hit] != votes[hit]).any())
        now = certify_deployed(attacked, design.membership, 10)
        winners = np.array([np.bincount(column, minlength=10).argmax() for column in attacked.T])
        sure = clean.radius >= m
        assert sure.any()
        np.testing.assert_array_equal(winners[sure], clean.prediction[sure])
        # Backwards: certified on the attacked votes at m, the label is the clean ensemble's.
        backwards = now.radius >= m
        clean_winners = np.array([np.bincount(column, minlength=10).argmax() for column in votes.T])
        np.testing.assert_array_equal(now.prediction[backwards], clean_winners[backwards])
    assert changed_anything, "the attack did nothing, so the test shows nothing"


def test_secret_certificate_holds_for_clients_chosen_without_the_assignment(federation):
    digits, _ = federation
    malicious = np.arange(3)  # fixed before any assignment is drawn
    failures = 0
    for draw in range(5):
        design = make_design("partitions", n=N, k=K, n_models=24, seed=f"assignment {draw} of a secret")
        votes = train(federation, design, digits.y_train)
        certificate = certify_secret(votes, design.group_sizes, design.repeats, 10, alpha=0.05)
        attacked = train(federation, design, flip_labels(federation, malicious), random_updates(malicious))
        winners = np.array([np.bincount(column, minlength=10).argmax() for column in attacked.T])
        sure = certificate.radius >= len(malicious)
        failures += bool((winners[sure] != certificate.prediction[sure]).any())
    assert failures == 0
