"""How often certificates fail, summed exactly over all outcomes of the vote; and the bounds they are made of."""

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from holdfast.certification import (
    METHODS,
    certify_ideal,
    clopper_pearson_lower,
    clopper_pearson_upper,
    hypergeometric_lower,
    radius,
    winner_pvalue,
)
from holdfast.types import ConfigError, ThreatModelError

RIGOROUS = [name for name, method in METHODS.items() if method.proven]
PUBLISHED = [name for name, method in METHODS.items() if not method.proven]
N_ITEMS, K = 10**6, 10  # so many clients that radii have no granularity to hide errors in


def tail(count: int, trials: int, p: Fraction) -> Fraction:
    return sum(
        (math.comb(trials, i) * p**i * (1 - p) ** (trials - i) for i in range(count, trials + 1)), start=Fraction(0)
    )


def compositions(total: int, parts: int) -> np.ndarray:
    bars = itertools.combinations(range(total + parts - 1), parts - 1)
    edges = np.array([(-1, *bar, total + parts - 1) for bar in bars])
    return np.diff(edges, axis=1) - 1


def failure(method: str, p: list[float], models: int, alpha: float, **options: object) -> float:
    """The exact probability that the certificate claims more than is true, with label shares p."""
    counts = compositions(models, len(p))
    found = certify_ideal(counts, n=N_ITEMS, k=K, alpha=alpha, simultaneous=False, method=method, **options)  # type: ignore[arg-type]
    order = np.argsort(-np.array(p), kind="stable")
    gap = p[order[0]] - p[order[1]]
    truth = radius("without", "P3", N_ITEMS, K, gap) if gap > 0 else -1
    wrong = (found.radius >= 0) & ((found.prediction != order[0]) | (found.radius > truth))
    return float(stats.multinomial(models, p).pmf(counts[wrong]).sum())


@pytest.mark.parametrize("method", [*RIGOROUS, "auto"])
@pytest.mark.parametrize("alpha", [0.001, 0.05, 0.2])
def test_rigorous_methods_fail_at_most_with_alpha(method: str, alpha: float) -> None:
    for models, p in [
        (223, [0.5, 0.5]), (100, [0.5, 0.5]), (100, [0.6, 0.4]), (100, [0.9, 0.1]), (100, [0.499, 0.501]),
        (40, [0.5, 0.5, 0.0]), (40, [1 / 3, 1 / 3, 1 / 3]), (40, [0.6, 0.2, 0.2]), (40, [0.45, 0.45, 0.1]),
        (14, [0.25, 0.25, 0.25, 0.25]), (14, [0.5, 0.5, 0.0, 0.0]),
    ]:  # fmt: skip
        assert failure(method, p, models, alpha) <= alpha * (1 + 1e-9)


def test_published_ensemble_method_fails_twice_as_often_as_it_says() -> None:
    assert 1.99 < failure("as-published-ensemble", [0.5, 0.5], 223, 0.001) / 0.001 <= 2
    assert failure("half-alpha", [0.5, 0.5], 223, 0.001) <= 0.001
    assert any(
        "twice" in line for line in certify_ideal([[9, 0]], n=9, k=1, alpha=0.1, method=PUBLISHED[0]).assumptions
    )


@pytest.mark.parametrize("method", PUBLISHED)
def test_published_methods_stay_within_twice_alpha(method: str) -> None:
    for models, p in [(100, [0.5, 0.5]), (40, [0.4, 0.4, 0.2])]:
        assert failure(method, p, models, 0.05) <= 2 * 0.05


@pytest.mark.parametrize("method", ["split", "bonferroni"])
def test_distinct_selections_fail_at_most_with_alpha(method: str) -> None:
    # All ways to draw N of the C(6, 2) = 15 selections when K_i of them vote for label i.
    for votes in ((8, 7), (5, 5, 5), (9, 3, 3), (7, 7, 1), (12, 3)):
        for models, alpha in ((8, 0.05), (12, 0.2), (14, 0.4)):
            counts = compositions(models, len(votes))
            counts = counts[(counts <= np.array(votes)).all(axis=1)]
            ways = np.array([math.prod(math.comb(v, c) for v, c in zip(votes, row, strict=True)) for row in counts])
            found = certify_ideal(counts, n=6, k=2, alpha=alpha, simultaneous=False, method=method, distinct=True)
            exact = certify_ideal([votes], n=6, k=2, alpha=alpha, exhaustive=True)
            wrong = (found.radius >= 0) & ((found.prediction != exact.prediction) | (found.radius > exact.radius))
            assert ways[wrong].sum() / math.comb(15, models) <= alpha


def test_distinct_selections_are_never_worse_and_exact_in_the_end() -> None:
    gain = 0
    for count in range(200, 401, 25):
        counts = [[count, 400 - count]]
        independent = certify_ideal(counts, n=30, k=2, alpha=0.001, method="split").radius[0]
        distinct = certify_ideal(counts, n=30, k=2, alpha=0.001, method="split", distinct=True).radius[0]
        assert distinct >= independent
        gain += int(distinct) - int(independent)
    assert gain > 0
    everything = certify_ideal([[300, 135]], n=30, k=2, alpha=0.001, distinct=True).radius[0]
    assert everything <= certify_ideal([[300, 135]], n=30, k=2, alpha=0.001, exhaustive=True).radius[0]


@given(st.integers(1, 60), st.fractions(Fraction(1, 10**9), Fraction(9, 10)), st.data())
def test_clopper_pearson_is_proven_and_tight(trials: int, alpha: Fraction, data: st.DataObject) -> None:
    count = data.draw(st.integers(0, trials))
    low, up = (Fraction(bound(count, trials, alpha)) for bound in (clopper_pearson_lower, clopper_pearson_upper))
    if count:
        assert tail(count, trials, low) <= alpha
        assert tail(count, trials, low + Fraction(1, 10**13)) > alpha
    else:
        assert low == 0
    if count < trials:
        assert 1 - tail(count + 1, trials, up) <= alpha
        assert 1 - tail(count + 1, trials, up - Fraction(1, 10**12)) > alpha
    else:
        assert up == 1


@pytest.mark.parametrize("p", [0.02, 0.5, 0.87, 0.999])
def test_clopper_pearson_covers(p: float) -> None:
    counts = np.arange(201)
    chance = stats.binom(200, p).pmf(counts)
    for alpha in (0.001, 0.1):
        assert chance[clopper_pearson_lower(counts, 200, alpha) > p].sum() <= alpha
        assert chance[clopper_pearson_upper(counts, 200, alpha) < p].sum() <= alpha


def test_bounds_rise_with_the_count_and_fall_with_confidence() -> None:
    counts = np.arange(501)
    for bound in (clopper_pearson_lower, clopper_pearson_upper):
        assert (np.diff(bound(counts, 500, 1e-7)) > 0).all()
    assert (clopper_pearson_lower(counts, 500, 1e-7) <= clopper_pearson_lower(counts, 500, 0.01)).all()
    assert clopper_pearson_lower(counts.reshape(3, 167), 500, 0.01).shape == (3, 167)
    assert isinstance(clopper_pearson_lower(7, 10, 0.01), float)
    assert clopper_pearson_lower(1, 10**6, 1e-250) >= 0
    assert clopper_pearson_lower(10**5 - 3, 10**5, 1e-9) > 0.99


@given(st.integers(1, 30), st.data())
def test_hypergeometric_bound_is_the_smallest_not_rejected(population: int, data: st.DataObject) -> None:
    draws = data.draw(st.integers(1, population))
    count = data.draw(st.integers(0, draws))
    alpha = data.draw(st.fractions(Fraction(1, 1000), Fraction(1, 2)))

    def chance(marked: int) -> Fraction:
        ways = sum(math.comb(marked, i) * math.comb(population - marked, draws - i) for i in range(count, draws + 1))
        return Fraction(ways, math.comb(population, draws))

    at = chance(data.draw(st.integers(0, population)))
    if 0 < at < 1 and data.draw(st.booleans()):
        alpha = at  # equality: not rejected means strictly above
    expected = next(marked for marked in range(population + 1) if chance(marked) > alpha)
    assert hypergeometric_lower(count, draws, population, alpha) == expected


@given(st.integers(0, 60), st.integers(0, 60))
def test_winner_pvalue_is_exact(n1: int, n2: int) -> None:
    exact = min(Fraction(1), 2 * tail(max(n1, n2), n1 + n2, Fraction(1, 2)))
    assert winner_pvalue(n1, n2) == float(exact)


def test_winner_pvalue_of_many_votes_is_close() -> None:
    assert winner_pvalue(10_100, 9_900) == pytest.approx(stats.binomtest(10_100, 20_000).pvalue, rel=1e-9)
    assert winner_pvalue(10**5, 0) == 0.0


@pytest.mark.parametrize("method", METHODS)
def test_radius_rises_with_alpha_and_with_agreement(method: str) -> None:
    counts = np.array([[count, (500 - count) // 2, 500 - count - (500 - count) // 2] for count in range(250, 501, 10)])
    strict = certify_ideal(counts, n=1000, k=10, alpha=1e-6, method=method).radius
    lax = certify_ideal(counts, n=1000, k=10, alpha=0.05, method=method).radius
    assert (np.diff(strict) >= 0).all()
    assert (strict <= lax).all()
    alone = certify_ideal(counts, n=1000, k=10, alpha=1e-6, method=method, simultaneous=False).radius
    assert (strict <= alone).all()


@pytest.mark.parametrize("method", METHODS)
def test_table_look_up_equals_one_input_at_a_time(method: str) -> None:
    rng = np.random.default_rng(0)
    counts = np.array([rng.multinomial(200, rng.dirichlet([0.3] * 4)) for _ in range(60)])
    alpha = Fraction(1, 100)
    together = certify_ideal(counts, n=300, k=7, alpha=alpha, method=method)
    for row, expected_label, expected in zip(counts, together.prediction, together.radius, strict=True):
        single = certify_ideal([row], n=300, k=7, alpha=alpha / 60, method=method)
        assert (single.prediction[0], single.radius[0]) == (expected_label, expected)


def test_ties_and_abstentions_are_plain() -> None:
    certificate = certify_ideal([[250, 250], [0, 500], [500, 0]], n=1000, k=10, alpha=0.001)
    assert certificate.prediction.tolist() == [-1, 1, 0]
    assert (certificate.radius[0], certificate.radius[1] > 0) == (-1, True)
    assert certify_ideal(np.empty((0, 3), dtype=int), n=10, k=2, alpha=0.1).n_inputs == 0


@pytest.mark.parametrize(
    ("options", "error", "name"),
    [
        ({"alpha": 0}, ConfigError, "alpha"),
        ({"alpha": 1}, ConfigError, "alpha"),
        ({"alpha": 1.9}, ConfigError, "alpha"),
        ({"alpha": "x"}, ConfigError, "alpha"),
        ({"alpha": math.nan}, ConfigError, "alpha"),
        ({"alpha": 1e-305}, ConfigError, "1e-300"),
        ({"k": 31}, ConfigError, "k=31"),
        ({"k": 0}, ConfigError, "k=0"),
        ({"method": "jeffrey"}, ConfigError, "method"),
        ({"scheme": "bag"}, ConfigError, "scheme"),
        ({"poisoning": "P9"}, ConfigError, "poisoning"),
        ({"perspective": "mine"}, ConfigError, "perspective"),
        ({"kind": "other"}, ConfigError, "kind"),
        ({"distinct": True, "method": "rank-verified"}, ThreatModelError, "rank-verified"),
        ({"distinct": True, "scheme": "with"}, ThreatModelError, "scheme"),
        ({"distinct": True, "k": 1}, ThreatModelError, "there are 30"),
        ({"exhaustive": True}, ThreatModelError, "435"),
        ({"counts": [[40.0, 60.0]]}, ConfigError, "float64"),
        ({"counts": [[-1, 101]]}, ConfigError, "negative"),
        ({"counts": [[100]]}, ConfigError, "shape"),
        ({"counts": [100, 0]}, ConfigError, "shape"),
        ({"counts": [[100, 0], [60, 60]]}, ConfigError, "same number"),
        ({"counts": [[0, 0]]}, ConfigError, "at least 1"),
    ],
)
def test_bad_arguments_are_named(options: dict[str, object], error: type[Exception], name: str) -> None:
    arguments = {"counts": [[100, 0]], "n": 30, "k": 2, "alpha": 0.01} | options
    with pytest.raises(error, match=name):
        certify_ideal(**arguments)  # type: ignore[arg-type]


def test_bad_counts_of_bounds_are_named() -> None:
    for call in (
        lambda: clopper_pearson_lower(11, 10, 0.1),
        lambda: clopper_pearson_lower(-1, 10, 0.1),
        lambda: clopper_pearson_upper(np.array([1.5]), 10, 0.1),
        lambda: clopper_pearson_lower(1, 0, 0.1),
        lambda: hypergeometric_lower(3, 2, 5, 0.1),
        lambda: hypergeometric_lower(1, 6, 5, 0.1),
        lambda: winner_pvalue(-1, 0),
    ):
        with pytest.raises(ConfigError):
            call()
