"""Certificates of deployed ensembles against brute force: every malicious set, every vote that it can cast."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.certification import certify_collective, certify_deployed, certify_secret
from holdfast.certification.coverage import Coverage
from holdfast.ensemble import make_design

BOUNDS = ("degree", "lp", "exact")


def winner(votes: np.ndarray, n_labels: int) -> int:
    return int(np.bincount(votes, minlength=n_labels).argmax())  # argmax takes the smaller label in a tie


def can_flip(votes: np.ndarray, hit: np.ndarray, n_labels: int) -> bool:
    """Whether some votes of the hit models change the winner: for each rival the best is that all vote for it."""
    now = winner(votes, n_labels)
    return any(winner(np.where(hit, rival, votes), n_labels) != now for rival in range(n_labels))


def true_radius(votes: np.ndarray, membership: np.ndarray, n_labels: int) -> int:
    n = membership.shape[1]
    for m in range(1, n + 1):
        for chosen in itertools.combinations(range(n), m):
            if can_flip(votes, membership[:, list(chosen)].any(axis=1), n_labels):
                return m - 1
    return n


@st.composite
def ensembles(draw: st.DrawFn, most_clients: int = 8, most_models: int = 8) -> tuple[np.ndarray, np.ndarray, int]:
    n, models = draw(st.integers(1, most_clients)), draw(st.integers(1, most_models))
    n_labels = draw(st.integers(2, 4))
    cell = st.lists(st.booleans(), min_size=n, max_size=n)
    membership = np.array(draw(st.lists(cell, min_size=models, max_size=models)), dtype=bool)
    favored = draw(st.integers(0, n_labels - 1))
    label = st.one_of(st.just(favored), st.just(favored), st.integers(0, n_labels - 1))
    votes = np.array(draw(st.lists(label, min_size=models, max_size=models)))
    return votes, membership, n_labels


def test_all_votes_of_hit_models_are_no_stronger_than_the_best_rival() -> None:
    # The brute force above lets all hit models vote for one rival. Here every joint vote is tried instead.
    rng = np.random.default_rng(0)
    for _ in range(60):
        votes, hit = rng.integers(0, 3, 5), rng.random(5) < 0.5
        outcomes = set()
        for choice in itertools.product(range(3), repeat=int(hit.sum())):
            attacked = votes.copy()
            attacked[hit] = choice
            outcomes.add(winner(attacked, 3))
        assert (outcomes != {winner(votes, 3)}) == can_flip(votes, hit, 3)


@given(ensembles())
def test_no_bound_exceeds_the_truth_and_exact_equals_it(case: tuple[np.ndarray, np.ndarray, int]) -> None:
    votes, membership, n_labels = case
    degree, lp, exact = (
        int(certify_deployed(votes[:, None], membership, n_labels, bound=bound).radius[0]) for bound in BOUNDS
    )
    assert degree <= lp <= exact == true_radius(votes, membership, n_labels)


@given(st.data())
def test_disjoint_groups_are_exact_and_fall_at_the_next_client(data: st.DataObject) -> None:
    n_labels, groups = data.draw(st.integers(2, 4)), data.draw(st.integers(1, 6))
    sizes = data.draw(st.lists(st.integers(1, 3), min_size=groups, max_size=groups))
    membership = np.repeat(np.eye(groups, dtype=bool), sizes, axis=1)
    votes = np.array(data.draw(st.lists(st.integers(0, n_labels - 1), min_size=groups, max_size=groups)))
    radius = int(certify_deployed(votes[:, None], membership, n_labels).radius[0])
    assert radius == true_radius(votes, membership, n_labels)
    # The flipper: one client in each of radius + 1 groups that vote for the winner, all turned to the closest rival.
    label = winner(votes, n_labels)
    counts = np.bincount(votes, minlength=n_labels)
    lead = counts[label] - counts - (np.arange(n_labels) < label)
    lead[label] = groups + 1
    attacked = votes.copy()
    attacked[np.flatnonzero(votes == label)[: radius + 1]] = lead.argmin()
    assert winner(attacked, n_labels) != label


@given(ensembles(most_clients=5, most_models=7), st.data())
def test_label_is_also_right_when_computed_from_votes_under_attack(
    case: tuple[np.ndarray, np.ndarray, int], data: st.DataObject
) -> None:
    clean, membership, n_labels = case
    malicious = data.draw(st.sets(st.integers(0, membership.shape[1] - 1)))
    hit = membership[:, sorted(malicious)].any(axis=1)
    attacked = np.where(hit, data.draw(st.integers(0, n_labels - 1)), clean)
    certificate = certify_deployed(attacked[:, None], membership, n_labels, bound="exact")
    if certificate.radius[0] >= len(malicious):
        assert certificate.prediction[0] == winner(clean, n_labels)


def test_real_sizes_keep_the_order_degree_lp_attack() -> None:
    rng = np.random.default_rng(1)
    design = make_design("random", n=60, k=4, n_models=60, seed=5)
    votes = np.where(rng.random((60, 6)) < 0.85, 1, rng.integers(0, 3, (60, 6)))
    radii = {b: certify_deployed(votes, design.membership, 3, bound=b).radius for b in BOUNDS}
    assert (radii["degree"] <= radii["lp"]).all()
    assert (radii["lp"] <= radii["exact"]).all()
    assert (radii["lp"] > radii["degree"]).any(), "the program never helped, so this test shows nothing"
    coverage = Coverage.of(design.membership)
    labels = certify_deployed(votes, design.membership, 3).prediction
    for column, label, radius in zip(votes.T, labels, radii["exact"], strict=True):
        counts = np.bincount(column, minlength=3)
        for rival in set(range(3)) - {label}:
            weights = 1 + (column == label).astype(np.int64) - (column == rival)
            reached = coverage.greedy(weights, int(radius))[1]
            assert not reached or reached[-1] <= counts[label] - counts[rival] - (rival < label)


def test_degree_equals_a_plain_loop_over_all_rivals() -> None:
    rng = np.random.default_rng(6)
    later_rival_binds = 0
    for seed in range(20):
        design = make_design("random", n=10, k=2, n_models=24, seed=seed)
        shares = rng.dirichlet([6, 3, 3, 2])
        votes = rng.choice(4, p=shares, size=(24, 40))
        found = certify_deployed(votes, design.membership, 4)
        for column, radius in zip(votes.T, found.radius, strict=True):
            counts, label = np.bincount(column, minlength=4), winner(column, 4)
            reach = {}
            for rival in set(range(4)) - {label}:
                weights = 1 + (column == label).astype(int) - (column == rival)
                sums = np.cumsum(np.sort(design.membership.T @ weights)[::-1])
                lead = counts[label] - counts[rival] - (rival < label)
                reach[rival] = (int((sums <= lead).sum()), lead)
            assert radius == min(m for m, _ in reach.values())
            closest = min(reach, key=lambda rival: reach[rival][1])
            later_rival_binds += reach[closest][0] > radius
    assert later_rival_binds > 0


def test_chunks_and_equal_columns_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(2)
    design = make_design("random", n=40, k=5, n_models=30, seed=5)
    votes = rng.integers(0, 4, (30, 50))
    votes = np.concatenate([votes, votes[:, ::-1]], axis=1)
    whole = certify_deployed(votes, design.membership, 4).radius
    monkeypatch.setattr("holdfast.certification.deployed.CHUNK_CELLS", 120)
    assert np.array_equal(certify_deployed(votes, design.membership, 4).radius, whole)
    single = [certify_deployed(votes[:, [i]], design.membership, 4).radius[0] for i in range(votes.shape[1])]
    assert np.array_equal(single, whole)


def test_dual_bound_holds_for_any_multipliers() -> None:
    rng = np.random.default_rng(3)
    for _ in range(12):
        membership = rng.random((7, 6)) < 0.4
        weights = rng.integers(0, 3, 7)
        coverage = Coverage.of(membership)
        for m in range(5):
            most = max(
                int(weights[membership[:, list(chosen)].any(axis=1)].sum())
                for chosen in itertools.combinations(range(6), m)
            )
            assert coverage.dual_bound(weights, rng.integers(0, (1 << 20) + 1, 7), m) >= most
            assert coverage.dual_bound(weights, coverage.dual_shares(weights, m), m) >= most
            assert coverage.milp_bound(weights, m, 5.0) >= most - 1e-6
            if m:
                assert min(coverage.greedy(weights, m)[2]) >= most >= coverage.greedy(weights, m)[1][-1]
                assert coverage.reaches(weights, m, most, limit=10**6) is True
                assert coverage.reaches(weights, m, most + 1, limit=10**6) is False


@pytest.mark.parametrize(("seconds", "told"), [(10.0, "HiGHS"), (-1.0, "time limit")])
def test_search_that_runs_out_stays_sound_and_says_so(
    monkeypatch: pytest.MonkeyPatch, seconds: float, told: str
) -> None:
    rng = np.random.default_rng(0)
    design = make_design("exhaustive", n=9, k=2, seed=3)  # so even that linear programs are off by whole clients
    votes = np.where(rng.random((36, 60)) < rng.uniform(0.6, 1, 60), 1, 0)
    exact = certify_deployed(votes, design.membership, 2, bound="exact")
    assert not any("HiGHS" in assumption or "time limit" in assumption for assumption in exact.assumptions)
    monkeypatch.setattr("holdfast.certification.deployed.SEARCH_NODES", 0)
    monkeypatch.setattr("holdfast.certification.deployed.MILP_SECONDS", seconds)
    if seconds < 0:
        monkeypatch.setattr(Coverage, "milp_bound", lambda self, weights, m, seconds: float(weights.sum()))
    limited = certify_deployed(votes, design.membership, 2, bound="exact")
    lp = certify_deployed(votes, design.membership, 2, bound="lp")
    assert any(told in assumption for assumption in limited.assumptions)
    assert (lp.radius <= limited.radius).all()
    assert (limited.radius <= exact.radius).all()


@pytest.mark.parametrize("seed", range(4))
def test_collective_bound_never_below_the_truth(seed: int) -> None:
    rng = np.random.default_rng(seed)
    for _ in range(15):
        n, models, n_labels, inputs = rng.integers([3, 2, 2, 1], [7, 9, 4, 6])
        membership = rng.random((models, n)) < 0.35
        votes = np.where(rng.random((models, inputs)) < 0.55, 1, rng.integers(0, n_labels, (models, inputs)))
        m = int(rng.integers(1, 3))
        changed = max(
            sum(can_flip(votes[:, t], membership[:, list(chosen)].any(axis=1), n_labels) for t in range(inputs))
            for chosen in itertools.combinations(range(n), m)
        )
        linear = certify_collective(votes, membership, n_labels, m, chunk=int(rng.integers(1, 4)))
        whole = certify_collective(votes, membership, n_labels, m, milp_seconds=5.0)
        assert changed == whole.changed <= linear.changed <= linear.one_by_one


def test_third_label_is_a_rival_too() -> None:
    # Margins 2 and 2 against two rivals; hitting one group that votes z1 and one that votes y helps z2 more than z1.
    votes = np.array([[0]] * 4 + [[1]] * 2 + [[2]] * 2)
    membership = np.zeros((8, 3), dtype=bool)
    membership[[0, 4], 0] = True
    membership[[1, 2, 5], 1] = True
    membership[[3, 6, 7], 2] = True
    assert certify_deployed(votes, membership, 3, bound="exact").radius[0] == true_radius(votes[:, 0], membership, 3)


def test_secret_is_at_least_the_simplest_deployed_bound() -> None:
    design = make_design("partitions", n=103, k=10, n_models=30, seed=1)
    rng = np.random.default_rng(5)
    votes = np.where(rng.random((30, 200)) < rng.random(200), 2, rng.integers(0, 4, (30, 200)))
    secret = certify_secret(votes, design.group_sizes, design.repeats, 4, alpha=0.001)
    assert secret.margin is not None
    assert (secret.radius >= secret.margin // (2 * design.repeats)).all()
    deployed = certify_deployed(votes, design.membership, 4)
    assert np.array_equal(deployed.prediction, secret.prediction)
    assert np.array_equal(deployed.margin, secret.margin)
