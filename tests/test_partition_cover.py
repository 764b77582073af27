"""Every partition: each row has exactly one holder, no client is empty, and only the arguments decide."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.data import PARTITIONS, Partition, partition
from holdfast.types import ConfigError, DataError

KINDS = [kind for kind in PARTITIONS if kind != "user"]


@st.composite
def problems(draw):
    """Labels, client count, seed and parameters, from comfortable to barely possible."""
    kind = draw(st.sampled_from(KINDS))
    n_labels = draw(st.integers(1, 12))
    y = np.array(draw(st.lists(st.integers(0, n_labels - 1), min_size=1, max_size=200)))
    params = {
        "label-skew": {"q": draw(st.floats(0.001, 1.0))},
        "dirichlet": {
            "beta": draw(st.one_of(st.floats(5e-324, 1.7e308), st.sampled_from([0.01, 0.9, 5e-324, 1.7e308])))
        },
        "shards": {"shards": draw(st.integers(1, 3))},
    }.get(kind, {})
    return kind, y, draw(st.integers(1, 60)), draw(st.integers(0, 2**63)), params


@given(problems())
def test_every_row_once_and_no_client_empty_or_one_sentence(problem):
    kind, y, n, seed, params = problem
    try:
        parts = partition(kind, y, n=n, seed=seed, **params)
    except (ConfigError, DataError):
        if kind in ("iid", "dirichlet"):  # these always succeed while there is a row for every client
            assert n > len(y)
        return
    assert parts.n == n
    assert parts.offsets.dtype == parts.indices.dtype == np.int64
    assert parts.sizes.min() >= 1
    assert sorted(parts.indices.tolist()) == list(range(len(y)))
    assert all((np.diff(parts.rows(c)) > 0).all() for c in range(n))
    again = partition(kind, y, n=n, seed=seed, **params)
    np.testing.assert_array_equal(parts.indices, again.indices)
    np.testing.assert_array_equal(parts.offsets, again.offsets)


@pytest.mark.parametrize("kind", KINDS)
def test_seed_decides_and_global_random_state_does_not(kind):
    y = np.arange(600) % 6
    np.random.seed(1)  # noqa: NPY002 (the global state is what must not matter)
    first = partition(kind, y, n=12, seed=3).indices
    np.random.seed(2)  # noqa: NPY002
    assert np.array_equal(first, partition(kind, y, n=12, seed=3).indices)
    assert not np.array_equal(first, partition(kind, y, n=12, seed=4).indices)


@given(st.integers(1, 500), st.integers(1, 500))
def test_iid_sizes_differ_by_at_most_one(rows, n):
    if n > rows:
        with pytest.raises(DataError, match=f"n is {n} clients but there are only {rows} rows"):
            partition("iid", np.zeros(rows, dtype=int), n=n, seed=0)
        return
    sizes = partition("iid", np.zeros(rows, dtype=int), n=n, seed=0).sizes
    assert sizes.max() - sizes.min() <= 1


@given(st.lists(st.sampled_from(["CA", "NY", "TX", "WY"]), min_size=1, max_size=50))
def test_user_partition_is_the_users(states):
    users = np.array(states)
    parts = partition("user", np.zeros(len(users), dtype=int), seed=0, users=users)
    assert parts.n == len(set(states))
    for client, state in enumerate(sorted(set(states))):
        assert parts.rows(client).tolist() == np.flatnonzero(users == state).tolist()


@pytest.mark.parametrize(
    ("kind", "n", "params", "sentence"),
    [
        ("label-skew", 20, {"q": 0}, "q is 0"),
        ("label-skew", 20, {"q": 1.5}, "q is 1.5"),
        ("label-skew", 20, {"q": float("nan")}, "q is nan"),
        ("label-skew", 9, {}, "n is 9, but label-skew needs at least one client for each of its 10 groups"),
        ("label-skew", 20, {"groups": 0}, "groups is 0"),
        ("dirichlet", 20, {"beta": 0.0}, "beta is 0.0"),
        ("dirichlet", 20, {"beta": float("inf")}, "beta is inf"),
        ("dirichlet", 20, {"min_size": 11}, "200 rows cannot give 20 clients 11 rows each"),
        ("dirichlet", 20, {"alpha": 1.0}, "no parameter 'alpha'; it takes beta, min_size"),
        ("iid", 20, {"q": 0.5}, "no parameter 'q'; it takes none"),
        ("iid", 0, {}, "n is 0"),
        ("iid", True, {}, "n is True"),
        ("iid", None, {}, "n, the number of clients, is missing"),
        ("shards", 101, {}, "200 rows cannot be cut into 202 shards"),
        ("two-labels", 4, {}, "at least 5 clients"),
        ("one-label", 9, {}, "at least one client for each of the 10 labels"),
        ("user", None, {}, "the data names no clients"),
        ("round-robin", 3, {}, "unknown partition 'round-robin'; it must be one of iid, label-skew"),
    ],
)
def test_bad_parameters_are_one_sentence(kind, n, params, sentence):
    with pytest.raises((ConfigError, DataError)) as caught:
        partition(kind, np.arange(200) % 10, n=n, seed=0, **params)
    assert sentence in str(caught.value)


def test_bad_labels_seed_and_users_are_one_sentence():
    y = np.arange(10) % 2
    with pytest.raises(DataError, match="integers from 0"):
        partition("iid", y - 1, n=2, seed=0)
    with pytest.raises(DataError, match="integers from 0"):
        partition("iid", y.astype(float), n=2, seed=0)
    with pytest.raises(ConfigError, match="seed is -1"):
        partition("iid", y, n=2, seed=-1)
    with pytest.raises(DataError, match="name one user for each"):
        partition("user", y, seed=0, users=y[:5])
    with pytest.raises(ConfigError, match="n is 3, but the data has 2 users"):
        partition("user", y, n=3, seed=0, users=y)
    with pytest.raises(ConfigError, match="no parameter 'q'"):
        partition("user", y, seed=0, users=y, q=0.5)


def test_select_keeps_rows_and_order_and_rows_refuses_unknown_clients():
    parts = partition("label-skew", np.arange(100) % 5, n=10, seed=1)
    some = parts.select([7, 2])
    assert some.n == 2
    np.testing.assert_array_equal(some.rows(0), parts.rows(7))
    np.testing.assert_array_equal(some.rows(1), parts.rows(2))
    assert isinstance(parts.select([]), Partition)
    assert parts.select([]).n == 0
    with pytest.raises(IndexError, match="client 10"):
        parts.rows(10)
