"""Batch rows: uniform, the same in any order and from NumPy as from compiled code, and unrelated between identities."""

import numba
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from holdfast.training.batches import batch_rows, derive_seed, fold, scale, stream_key

MASK = 2**64 - 1


def reference_place(seed, identity, size):
    """The definition once more, in Python's unbounded integers."""
    word = derive_seed(seed, "batches")
    for part in identity:
        word = (word + 0x9E3779B97F4A7C15 * (part + 1)) & MASK
        word = ((word ^ (word >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        word = ((word ^ (word >> 27)) * 0x94D049BB133111EB) & MASK
        word ^= word >> 31
    return ((word >> 32) * size) >> 32


@numba.njit
def compiled_places(key, model, client, round_number, size, steps, batch_size):
    out = np.empty((steps, batch_size), np.int64)
    at_round = fold(fold(fold(key, np.uint64(model)), np.uint64(client)), np.uint64(round_number))
    for step in range(steps):
        at_step = fold(at_round, np.uint64(step))
        for place in range(batch_size):
            out[step, place] = scale(fold(at_step, np.uint64(place)), np.uint64(size))
    return out


def one_client(size):
    """Client `c` of any number holds the same `size` rows 0, 1, ...; so rows are places."""
    return np.array([0, size]), np.arange(size)


@given(
    seed=st.integers(-(2**70), 2**70),
    model=st.integers(0, 2**40),
    client=st.integers(0, 5),
    round_number=st.integers(0, 10**6),
    sizes=st.lists(st.integers(1, 300), min_size=6, max_size=6),
)
def test_numpy_and_compiled_code_and_plain_integers_agree(seed, model, client, round_number, sizes):
    offsets = np.concatenate([[0], np.cumsum(sizes)])
    indices = np.arange(offsets[-1])[::-1].copy()
    rows = batch_rows(seed, [model], [client], round_number, offsets, indices, 3, 5)[0]
    places = compiled_places(stream_key(seed), model, client, round_number, sizes[client], 3, 5)
    assert np.array_equal(rows, indices[offsets[client] + places])
    assert places[2, 4] == reference_place(seed, (model, client, round_number, 2, 4), sizes[client])
    assert places[0, 1] == reference_place(seed, (model, client, round_number, 0, 1), sizes[client])


def test_a_pair_draws_the_same_rows_in_any_company():
    rng = np.random.default_rng(0)
    offsets = np.concatenate([[0], np.cumsum(rng.integers(1, 40, size=30))])
    indices = rng.permutation(offsets[-1])
    models, clients = rng.integers(0, 9, size=50), rng.integers(0, 30, size=50)
    together = batch_rows(5, models, clients, 7, offsets, indices, 4, 6)
    order = rng.permutation(50)
    assert np.array_equal(batch_rows(5, models[order], clients[order], 7, offsets, indices, 4, 6), together[order])
    for place in (0, 13, 49):
        alone = batch_rows(5, models[place], clients[place], 7, offsets, indices, 4, 6)
        assert np.array_equal(alone[0], together[place])
    longer = batch_rows(5, models, clients, 7, offsets, indices, 9, 11)
    assert np.array_equal(longer[:, :4, :6], together)


def test_rows_are_the_clients_own():
    offsets, indices = np.array([0, 1, 1, 4]), np.array([8, 3, 5, 9])
    rows = batch_rows(0, [0, 0], [0, 2], 0, offsets, indices, 5, 50)
    assert set(rows[0].ravel()) == {8}
    assert set(rows[1].ravel()) == {3, 5, 9}


@pytest.mark.parametrize("size", [2, 7, 32, 1000])
@pytest.mark.parametrize("varies", ["position", "step", "round", "client", "model", "seed"])
def test_places_are_uniform_along_every_part_of_the_identity(size, varies):
    draws = 200 * size
    if varies == "seed":
        key = np.array([stream_key(seed) for seed in range(min(draws, 20000))])
    else:
        counter = np.arange(draws, dtype=np.uint64)
        key = np.array([stream_key(1)])
        for part in ("model", "client", "round", "step", "position"):
            key = fold.py_func(key, counter if part == varies else np.array([3], np.uint64))
    places = scale.py_func(key, np.uint64(size)).astype(np.int64)
    assert stats.chisquare(np.bincount(places, minlength=size)).pvalue > 1e-4


def test_pairs_of_neighboring_places_are_independent():
    offsets, indices = one_client(10)
    rows = np.stack([batch_rows(2, [model], [0], 0, offsets, indices, 5, 8)[0] for model in range(2000)])
    for first, second in [
        (rows[:, :, :-1], rows[:, :, 1:]),
        (rows[:, :-1], rows[:, 1:]),
        (rows[:-1], rows[1:]),
    ]:
        table = np.zeros((10, 10))
        np.add.at(table, (first.ravel(), second.ravel()), 1)
        assert stats.chi2_contingency(table).pvalue > 1e-4


def test_no_two_identities_share_their_batches():
    offsets, indices = one_client(1000)
    batches = {
        (round_number, step, model): batch_rows(3, [model], [0], round_number, offsets, indices, 4, 16)[
            0, step
        ].tobytes()
        for model in range(40)
        for round_number in range(5)
        for step in range(4)
    }
    assert len(set(batches.values())) == len(batches)


def test_derived_seeds_tell_identities_apart():
    identities = [(), (1,), ("1",), (1, 2), (12,), ("12",), ("1", "2"), (2, 1), ("i1",), (-1,), (1, "")]
    assert len({derive_seed(0, *identity) for identity in identities}) == len(identities)
    assert derive_seed(1) != derive_seed(0, 1)
    assert derive_seed(3, np.int64(4)) == derive_seed(3, 4)
    assert all(0 <= derive_seed(seed, "init", 1) < 2**64 for seed in (-5, 0, 2**100))
