"""Certificates from a secret assignment: the distribution of hit groups against enumeration, and the promise itself."""

import itertools
import math
from collections import Counter
from collections.abc import Iterator
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.certification import certify_secret, hit_quantile, secret
from holdfast.ensemble import make_design
from holdfast.types import ConfigError


def enumerated(sizes: list[int], idle: int, repeats: int, m: int) -> Counter[int]:
    """How many of all placements of m named clients hit b groups, by listing the places each client can take."""
    owner = [group for group, size in enumerate(sizes) for _ in range(size)] + [None] * idle
    one: Counter[int] = Counter()
    for places in itertools.permutations(range(len(owner)), m):
        one[len({owner[place] for place in places} - {None})] += 1
    total = Counter({0: 1})
    for _ in range(repeats):
        step: Counter[int] = Counter()
        for (b, ways), (c, more) in itertools.product(total.items(), one.items()):
            step[b + c] += ways * more
        total = step
    return total


small = st.tuples(st.lists(st.integers(1, 3), min_size=1, max_size=3), st.integers(0, 2), st.integers(1, 3))


@given(small, st.integers(0, 4), st.fractions(Fraction(1, 1000), Fraction(1, 2), max_denominator=5000), st.booleans())
def test_quantile_equals_enumeration(
    case: tuple[list[int], int, int], m: int, alpha: Fraction, at_threshold: bool
) -> None:
    sizes, idle, repeats = case
    n = sum(sizes) + idle
    m = min(m, n)
    ways = enumerated(sizes, idle, repeats, m)
    total = sum(ways.values())
    above = {b: Fraction(sum(count for hits, count in ways.items() if hits > b), total) for b in range(max(ways) + 1)}
    if at_threshold and 0 < above[min(ways)] < 1:
        alpha = above[min(ways)]  # equality, which floats cannot decide
    expected = next(b for b, chance in above.items() if chance <= alpha)
    assert hit_quantile(sizes, repeats, m, alpha, n=n) == expected


@given(st.lists(st.integers(1, 12), min_size=1, max_size=8), st.integers(0, 5), st.integers(0, 25))
def test_floats_agree_with_integers(sizes: list[int], idle: int, m: int) -> None:
    n = sum(sizes) + idle
    m = min(m, n)
    classes = tuple(sorted(Counter(sizes).items()))
    chances = secret._touched(classes, idle, m, exact=False)
    ways = secret._touched(classes, idle, m, exact=True)
    assert sum(ways) == math.perm(n, m)
    exact = np.array([float(Fraction(int(count), math.perm(n, m))) for count in ways])
    np.testing.assert_allclose(chances, exact, rtol=1e-12, atol=0)


def test_order_of_groups_does_not_matter_and_limits_hold() -> None:
    assert hit_quantile([10] * 7 + [11] * 3, 3, 6, 0.01) == hit_quantile([11, 10] * 3 + [10] * 4, 3, 6, 0.01)
    assert hit_quantile([10] * 100, 5, 0, 0.001) == 0
    assert hit_quantile([10] * 100, 5, 1, 0.001) == 5
    assert hit_quantile([5, 5], 2, 10, 0.001) == 4
    assert hit_quantile([4, 4], 1, 8, 0.5, n=8) == 2


def test_quantile_rises_with_m_and_with_confidence() -> None:
    values = [hit_quantile([10] * 30, 3, m, 0.01) for m in range(60)]
    assert values == sorted(values)
    assert all(value <= 3 * m for m, value in enumerate(values))
    assert all(hit_quantile([10] * 30, 3, m, 1e-9) >= value for m, value in enumerate(values))


def test_extreme_confidence_falls_back_to_integers() -> None:
    assert hit_quantile([2] * 10, 2, 3, Fraction(1, 10**400)) == 6
    assert hit_quantile([1] * 100, 1, 50, Fraction(1, 10**310), n=200) <= 50


def test_independent_subsets_are_binomial() -> None:
    n, k, models, m, alpha = 30, 4, 25, 3, Fraction(1, 50)
    q = 1 - Fraction(math.comb(n - m, k), math.comb(n, k))
    chance = [math.comb(models, b) * q**b * (1 - q) ** (models - b) for b in range(models + 1)]
    expected = next(b for b in range(models + 1) if sum(chance[b + 1 :]) <= alpha)
    assert hit_quantile([k], models, m, alpha, n=n) == expected


def test_promise_holds_over_the_draws_of_the_assignment() -> None:
    # Fixed malicious clients 0..m-1, who turn every model they reach to the closest rival on ALL inputs at once. The
    # share of draws in which any certified input falls must stay below alpha (and above 0, or nothing is tested).
    n, k, repeats, alpha, draws = 24, 3, 3, 0.2, 400
    rng = np.random.default_rng(0)
    broken = 0
    for seed in range(draws):
        design = make_design("partitions", n=n, k=k, n_models=repeats * 8, seed=seed)
        votes = (np.arange(24)[:, None] < np.arange(13)[None, :]).astype(np.int64)
        votes = rng.permuted(votes, axis=0)
        certificate = certify_secret(votes, design.group_sizes, repeats, 2, alpha=alpha)
        m = certificate.max_radius
        hit = design.membership[:, :m].any(axis=1)
        attacked = np.where(hit[:, None], 1 - certificate.prediction, votes)
        fallen = (attacked.sum(axis=0) * 2 > 24).astype(np.int64) != certificate.prediction
        broken += bool((fallen & (certificate.radius >= m)).any())
    assert 0 < broken / draws <= alpha


def placements(clients: tuple[int, ...], sizes: list[int]) -> Iterator[tuple[frozenset[int], ...]]:
    """All ways to deal clients out to groups of these sizes."""
    if not sizes:
        yield ()
        return
    for group in itertools.combinations(clients, sizes[0]):
        rest = tuple(client for client in clients if client not in group)
        for others in placements(rest, sizes[1:]):
            yield (frozenset(group), *others)


@pytest.mark.parametrize(
    ("sizes", "repeats"), [([2, 2, 2], 1), ([2, 2, 2], 2), ([3, 2, 2], 1), ([2, 2, 2, 2], 1), ([4, 4], 2), ([1] * 5, 1)]
)
def test_no_malicious_set_beats_the_certificate_over_all_assignments(sizes: list[int], repeats: int) -> None:
    # Every vote of the groups is an input, every assignment is drawn, every set of m clients is tried, and every group
    # with one of them turns all its votes: the draws in which any certified input falls are at most a share alpha.
    n, models = sum(sizes), len(sizes) * repeats
    votes = np.array(list(itertools.product((0, 1), repeat=models))).T
    alphas = (Fraction(1, 20), Fraction(1, 5), Fraction(2, 3))
    certificates = [certify_secret(votes, sizes, repeats, 2, alpha=alpha) for alpha in alphas]
    one = list(placements(tuple(range(n)), sizes))
    for m in range(1, n + 1):
        for malicious in itertools.combinations(range(n), m):
            each = [[not group.isdisjoint(malicious) for group in groups] for groups in one]
            hit = np.array([list(itertools.chain(*draw)) for draw in itertools.product(each, repeat=repeats)])
            distinct, times = np.unique(hit, axis=0, return_counts=True)
            for alpha, found in zip(alphas, certificates, strict=True):
                attacked = np.where(distinct[:, :, None], 1 - found.prediction, votes)
                fallen = (2 * attacked.sum(axis=1) > models).astype(int) != found.prediction
                broken = (fallen & (found.radius >= m)).any(axis=1)
                assert times[broken].sum() <= alpha * len(hit)
                # At the next client it may fall: where the groups that are hit all back the winner, too often.
                assert found.margin is not None
                for margin in set(found.margin[found.radius == m - 1]):
                    assert (2 * hit.sum(axis=1) > margin).mean() > alpha


def test_certificate_reports_margin_and_kind() -> None:
    votes = np.array([[0, 1], [0, 1], [2, 1], [0, 1]])
    certificate = certify_secret(votes, [2, 2], 2, 3, alpha=Fraction(1, 100))
    assert (certificate.kind, certificate.alpha) == ("secret", 0.01)
    assert certificate.margin is not None
    assert certificate.margin.tolist() == [2, 3]
    assert certificate.prediction.tolist() == [0, 1]
    assert certify_secret(np.empty((4, 0), dtype=int), [2, 2], 2, 3, alpha=0.1).n_inputs == 0


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"group_sizes": []}, "group_sizes"),
        ({"group_sizes": [2, 0]}, "group_sizes"),
        ({"group_sizes": [2, 2.5]}, "group_sizes"),
        ({"repeats": 0}, "repeats"),
        ({"repeats": 3}, "rows"),
        ({"alpha": 0}, "alpha"),
        ({"alpha": 1.0}, "alpha"),
        ({"n": 3}, "places"),
        ({"n_labels": 1}, "n_labels"),
        ({"n_labels": 2}, "must lie in 0"),
        ({"votes": [[0.0]] * 4}, "float"),
        ({"votes": [0, 0, 0, 0]}, "shape"),
        ({"votes": [[-1]] * 4}, "must lie in 0"),
    ],
)
def test_bad_arguments_are_named(options: dict[str, object], name: str) -> None:
    arguments = {
        "votes": [[2], [2], [2], [0]],
        "group_sizes": [2, 2],
        "repeats": 2,
        "n_labels": 3,
        "alpha": 0.1,
    } | options
    with pytest.raises(ConfigError, match=name):
        certify_secret(**arguments)  # type: ignore[arg-type]


def test_bad_arguments_of_the_quantile_are_named() -> None:
    with pytest.raises(ConfigError, match="m=5"):
        hit_quantile([2, 2], 1, 5, 0.1)
    with pytest.raises(ConfigError, match="m=-1"):
        hit_quantile([2, 2], 1, -1, 0.1)
