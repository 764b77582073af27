"""Each partition has the label distribution its paper describes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from holdfast.data import partition
from holdfast.data.dealing import fill
from holdfast.types import DataError


def group_of(client, n, groups):
    """Clients are cut into consecutive groups; written from the paper's words, not from the code."""
    edges = [g * n // groups for g in range(groups + 1)]
    return next(g for g in range(groups) if edges[g] <= client < edges[g + 1])


@pytest.mark.parametrize("q", [0.1, 0.3, 0.5, 0.9])
@pytest.mark.parametrize("n", [10, 37, 200])
def test_label_skew_frequencies_match_q(q, n):
    y = np.random.default_rng(5).integers(10, size=20_000)
    parts = partition("label-skew", y, n=n, seed=11, q=q)
    client = np.empty(len(y), dtype=int)
    client[parts.indices] = parts.holders()
    group = np.array([group_of(c, n, 10) for c in range(n)])[client]
    for label in range(10):
        seen = np.bincount(group[y == label], minlength=10)
        share = np.full(10, (1 - q) / 9)
        share[label] = q
        assert stats.chisquare(seen, share * seen.sum()).pvalue > 1e-4
    for g in range(10):  # uniform over the clients of a group
        clients = [c for c in range(n) if group_of(c, n, 10) == g]
        if len(clients) > 1:
            assert stats.chisquare(parts.sizes[clients]).pvalue > 1e-4


def test_label_skew_with_q_one_gives_each_group_only_its_label_even_after_filling():
    y = np.repeat(np.arange(4), 6)
    for seed in range(30):
        counts = partition("label-skew", y, n=20, seed=seed, q=1.0).label_counts(y)
        assert [np.flatnonzero(row).tolist() for row in counts] == [[c // 5] for c in range(20)]


def test_label_skew_says_when_a_group_has_too_few_rows():
    y = np.array([0] * 100 + [1] * 3)
    with pytest.raises(DataError, match="gives group 1 3 rows for its 5 clients"):
        partition("label-skew", y, n=10, seed=0, q=1.0)


@given(st.lists(st.integers(0, 9), min_size=30, max_size=80), st.integers(1, 3))
def test_filling_takes_the_last_row_of_the_largest_client(holders, smallest):
    expected = list(holders)
    for client in range(10):
        while expected.count(client) < smallest:
            sizes = [expected.count(c) for c in range(10)]
            donor = sizes.index(max(sizes))
            rows = [row for row, holder in enumerate(holders) if holder == donor and expected[row] == donor]
            expected[rows[-1]] = client
    filled = np.array(holders)
    fill(filled, range(10), smallest)
    assert filled.tolist() == expected


def test_dirichlet_small_beta_concentrates_and_large_beta_evens_out():
    y = np.arange(10_000) % 10

    def evenness(beta):
        counts = partition("dirichlet", y, n=10, seed=2, beta=beta).label_counts(y)
        return (counts.max(axis=0) / counts.sum(axis=0)).mean()

    assert evenness(0.01) > 0.9
    assert evenness(1e6) < 0.11
    assert evenness(1.7e308) < 0.11
    assert evenness(5e-324) > 0.99
    assert evenness(0.01) > evenness(0.9) > evenness(100.0)


def test_dirichlet_proportions_have_the_right_mean_and_spread():
    n, beta = 5, 0.9
    y = np.zeros(1000, dtype=int)
    shares = np.array([partition("dirichlet", y, n=n, seed=s, beta=beta).sizes / 1000 for s in range(400)])
    variance = (1 / n) * (1 - 1 / n) / (n * beta + 1)
    assert np.allclose(shares.mean(axis=0), 1 / n, atol=0.04)
    assert np.allclose(shares.var(axis=0), variance, rtol=0.3)


@given(st.integers(1, 5), st.integers(1, 20), st.integers(0, 100))
def test_dirichlet_min_size_holds(min_size, n, seed):
    y = np.arange(100) % 3
    assert partition("dirichlet", y, n=n, seed=seed, beta=0.05, min_size=min_size).sizes.min() >= min_size


def test_shards_give_at_most_two_labels_where_shards_are_pure():
    y = np.repeat(np.arange(10), 100)
    parts = partition("shards", y, n=50, seed=0)
    assert (parts.sizes == 20).all()
    assert ((parts.label_counts(y) > 0).sum(axis=1) <= 2).all()


@given(st.integers(5, 60), st.integers(0, 50))
def test_two_labels_each_and_equal_shares_of_a_label(n, seed):
    y = np.repeat(np.arange(10), 80)
    counts = partition("two-labels", y, n=n, seed=seed).label_counts(y)
    assert ((counts > 0).sum(axis=1) == 2).all()
    for label in range(10):
        held = counts[:, label][counts[:, label] > 0]
        assert held.max() - held.min() <= 1


def test_two_labels_draws_every_pair_alike():
    y = np.repeat(np.arange(4), 2000)
    counts = partition("two-labels", y, n=1500, seed=0).label_counts(y)
    pairs = np.array([a * 4 + b for a, b in (np.flatnonzero(row) for row in counts)])
    assert stats.chisquare(np.unique(pairs, return_counts=True)[1]).pvalue > 1e-4
    assert len(np.unique(pairs)) == 6


@given(st.integers(10, 40))
def test_one_label_each_in_turn(n):
    y = np.repeat(np.arange(10), 50)
    counts = partition("one-label", y, n=n, seed=0).label_counts(y)
    assert [np.flatnonzero(row).tolist() for row in counts] == [[c % 10] for c in range(n)]
