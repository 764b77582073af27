"""The coordinate-wise kernels: exact for every input, the same bits compiled or not, in any order, on any threads."""

from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from holdfast.aggregation import kernels
from holdfast.aggregation.kernels import coordinate, emit, gram, order_code, parallel, tensors
from holdfast.aggregation.kernels.networks import merging_network, middle_ranks, selection_network

BIG = {np.float32: float(np.finfo(np.float32).max), np.float64: float(np.finfo(np.float64).max)}


@st.composite
def matrices(draw, least=1, most=24, huge=True):
    dtype = draw(st.sampled_from([np.float32, np.float64]))
    shape = (draw(st.integers(least, most)), draw(st.integers(1, 40)))
    limit = BIG[dtype] if huge else 2.0**20
    ordinary = st.floats(-limit, limit, width=np.dtype(dtype).itemsize * 8)
    special = st.sampled_from([0.0, -0.0, 1.0, -1.0, limit, -limit, float(np.finfo(dtype).smallest_subnormal)])
    return draw(hnp.arrays(dtype, shape, elements=ordinary | special))


def exact_mean(values, dtype):
    """Mean in a precision in which nothing overflows, rounded to the dtype."""
    return np.asarray(values, dtype=np.longdouble).mean(axis=0).astype(dtype)


def close(ours, theirs, scale, terms=0):
    """Equal up to a few units in the last place of the largest value that went in.

    Sums of float32 are taken in float64; those of `terms` numbers in float64 may be off by half a unit for each.
    """
    eps = np.finfo(ours.dtype).eps
    units = 2 + (terms / 2 if ours.dtype == np.float64 else 0)
    bound = units * eps * np.abs(np.asarray(scale, dtype=np.longdouble)) + np.finfo(ours.dtype).tiny
    return bool(np.all(np.abs(ours.astype(np.longdouble) - theirs.astype(np.longdouble)) <= bound))


# ---- networks ------------------------------------------------------------------------------------------------------


def run(network, values):
    wires = list(values)
    for c in network.comparators:
        a, b = wires[c.low], wires[c.high]
        if c.keep_low:
            wires[c.low] = min(a, b)
        if c.keep_high:
            wires[c.high] = max(a, b)
    return [wires[w] for w in network.wire]


@pytest.mark.parametrize("n", range(1, 13))
def test_networks_sort_every_zero_one_input(n):
    # The 0-1 principle: a network that sorts all inputs of zeros and ones sorts everything.
    network = selection_network(n, range(n))
    columns = np.array(list(product([0, 1], repeat=n)), dtype=np.int8).T
    wires = [c.copy() for c in columns]
    for c in network.comparators:
        wires[c.low], wires[c.high] = np.minimum(wires[c.low], wires[c.high]), np.maximum(wires[c.low], wires[c.high])
    assert (np.array([wires[w] for w in network.wire]) == np.sort(columns, axis=0)).all()


@pytest.mark.parametrize("n", range(1, 10))
def test_pruned_networks_select_every_rank_of_zero_one_inputs(n):
    for rank in range(n):
        network = selection_network(n, [rank])
        assert all(run(network, bits)[rank] == sorted(bits)[rank] for bits in product([0, 1], repeat=n))


@pytest.mark.parametrize("runs", [[1, 1], [3, 3], [4, 4, 1], [5, 5, 0], [2, 1, 3]])
def test_merging_networks_select_every_rank_of_sorted_runs(runs):
    for ones in product(*[range(length + 1) for length in runs]):
        bits = [int(k >= length - one) for length, one in zip(runs, ones, strict=True) for k in range(length)]
        for rank in range(len(bits)):
            assert run(merging_network(runs, [rank]), bits)[rank] == sorted(bits)[rank]


@given(st.integers(1, 256), st.randoms(use_true_random=False))
@settings(max_examples=25)
def test_networks_select_the_middle_of_many_values(n, random):
    values = [random.random() for _ in range(n)]
    lo, hi = middle_ranks(n)
    assert run(selection_network(n, range(lo, hi)), values)[lo:hi] == sorted(values)[lo:hi]


# ---- order statistics ----------------------------------------------------------------------------------------------


@given(matrices(), st.data())
def test_mean_of_ranks_is_that_of_the_sorted_values(x, data):
    lo = data.draw(st.integers(0, len(x) - 1))
    hi = data.draw(st.integers(lo + 1, len(x)))
    before = x.copy()
    ours = coordinate.order_statistics_mean(x, lo, hi)
    kept = np.sort(x, axis=0)[lo:hi]
    assert ours.dtype == x.dtype
    assert close(ours, exact_mean(kept, x.dtype), np.abs(kept).max(axis=0), len(kept))
    assert (ours >= kept[0]).all()
    assert (ours <= kept[-1]).all()
    assert (x.view(np.uint8) == before.view(np.uint8)).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("n", [1, 2, 3, 10, 17, 20, 33, 50, 100, 143, 144, 145, 200, 256, 257, 300])
def test_median_and_trimmed_mean_for_small_and_large_n(n, dtype):
    x = np.random.default_rng(n).normal(size=(n, 333)).astype(dtype)
    ranked = np.sort(x, axis=0)
    lo, hi = middle_ranks(n)
    f = n // 5
    assert close(coordinate.median(x), exact_mean(ranked[lo:hi], dtype), ranked[lo])
    mean = exact_mean(ranked[f : n - f], dtype)
    assert close(coordinate.trimmed_mean(x, f), mean, np.abs(ranked).max(axis=0), n)


def closest_to_median(column, keep):
    """Straight from the definition: sort by distance, the smaller value first."""
    center = exact_mean(np.sort(column)[slice(*middle_ranks(len(column)))], np.longdouble)
    wide = column.astype(np.longdouble)
    return sorted(wide, key=lambda v: (abs(v - center), v))[:keep]


@given(matrices(most=11, huge=False), st.data())
def test_mean_around_median_keeps_the_closest_values(x, data):
    x = np.round(x)  # distances are exact, ties are frequent
    f = data.draw(st.integers(0, len(x) // 2))
    expected = np.array([np.mean(closest_to_median(c, len(x) - f)) for c in x.T])
    assert close(coordinate.mean_around_median(x, f), expected, np.abs(x).max(axis=0), len(x))


@given(matrices(), st.data())
def test_compiled_and_numpy_form_give_the_same_bits(x, data):
    if not emit.available():
        pytest.skip("no compiler here")
    around = data.draw(st.booleans())
    lo = 0 if around else data.draw(st.integers(0, len(x) - 1))
    hi = len(x) - data.draw(st.integers(0, len(x) // 2)) if around else data.draw(st.integers(lo + 1, len(x)))
    results = []
    for form in (coordinate._numpy_run, coordinate._compiled_run, coordinate._sorting_run):
        out, sums = np.empty(x.shape[1], x.dtype), np.zeros((1, coordinate.SUMS), x.dtype)
        form(list(x), out, sums, lo, hi, around)(0, 0, x.shape[1])
        results.append(out)
        with np.errstate(over="ignore"):
            total = (x.astype(np.longdouble) ** 2).sum()
            summed = sums.sum(dtype=np.longdouble)
        # values of a last, partial register may count twice; what vanishes in squaring does not count
        assert summed >= 0.99 * total - len(x) * 1e-36 or not np.isfinite(summed)
        assert summed <= 2.01 * total + 1e-36 or total > 0.5 * BIG[x.dtype.type]
    assert all(np.array_equal(result, results[0]) for result in results[1:])


@pytest.mark.parametrize("n", [10, 50, 101, 145, 200])
def test_without_a_compiler_nothing_changes(n, monkeypatch):
    x = np.random.default_rng(n).normal(size=(n, 20001)).astype(np.float32)
    compiled = [coordinate.median(x), coordinate.trimmed_mean(x, 2), coordinate.mean_around_median(x, 3)]
    monkeypatch.setattr(emit, "available", lambda: False)
    plain = [coordinate.median(x), coordinate.trimmed_mean(x, 2), coordinate.mean_around_median(x, 3)]
    assert all(np.array_equal(a, b) for a, b in zip(compiled, plain, strict=True))


def test_long_code_is_compiled_once_for_all_processes(tmp_path, monkeypatch):
    if not emit.available():
        pytest.skip("no compiler here")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    x = np.random.default_rng(0).normal(size=(110, 50)).astype(np.float32)
    folder = tmp_path / "holdfast" / "kernels"
    compiled = []
    build = emit._object_code
    monkeypatch.setattr(emit, "_object_code", lambda *given: compiled.append(1) or build(*given))

    def median():  # as a new process would
        order_code.order_kernel.cache_clear()
        return coordinate.median(x)

    expected = median()
    (kept,) = folder.iterdir()
    assert len(compiled) == 1
    assert np.array_equal(median(), expected)
    assert len(compiled) == 1
    whole = kept.read_bytes()
    for damaged in (b"", whole[:100], whole[:-1], whole[:-1] + bytes([whole[-1] ^ 1]), b"\0" * len(whole)):
        kept.write_bytes(damaged)
        before = len(compiled)
        assert np.array_equal(median(), expected)
        assert len(compiled) == before + 1
        assert kept.read_bytes() == whole
    kept.unlink()
    folder.rmdir()
    folder.write_text("in the way")
    assert np.array_equal(median(), expected)


def test_threads_and_chunks_cannot_be_seen(monkeypatch):
    monkeypatch.setattr(parallel, "POOL_PAYS_NS", 0.0)
    x = np.random.default_rng(0).normal(size=(7, 100_003)).astype(np.float32)
    one = coordinate.trimmed_mean(x, 1, threads=1)
    assert np.array_equal(one, coordinate.trimmed_mean(x, 1, threads=3))
    assert np.array_equal(one[5:77], coordinate.trimmed_mean(x[:, 5:77], 1))


@given(matrices(), st.randoms(use_true_random=False))
def test_the_order_of_the_clients_cannot_be_seen(x, random):
    order = random.sample(range(len(x)), len(x))
    f = (len(x) - 1) // 3
    for rule in (coordinate.median, lambda r: coordinate.trimmed_mean(r, f)):
        assert np.array_equal(rule(x), rule([x[k] for k in order]))


@given(matrices(least=3, most=12), st.integers(0, 11), st.booleans())
def test_infinite_values_below_the_trim_leave_no_trace(x, where, positive):
    x[where % len(x)] = np.inf if positive else -np.inf
    assert np.isfinite(coordinate.trimmed_mean(x, 1)).all()
    assert np.isfinite(coordinate.median(x)).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_sums_of_huge_values_do_not_overflow(dtype):
    x = np.full((9, 20), BIG[dtype], dtype)
    x[:4] *= dtype(-1)
    assert np.array_equal(coordinate.trimmed_mean(x[4:], 1), x[5])
    assert np.array_equal(coordinate.mean_around_median(x[4:], 1), x[5])
    assert np.allclose(coordinate.trimmed_mean(x, 0) / BIG[dtype], 1 / 9)
    assert np.allclose(coordinate.mean_around_median(x, 0) / BIG[dtype], 1 / 9)


def test_rows_are_read_in_place_from_any_layout():
    base = np.random.default_rng(0).normal(size=(100, 9))
    assert np.array_equal(coordinate.median(base.T), np.median(base, axis=1))
    assert np.array_equal(coordinate.median(list(base.T[:, 1:])), np.median(base[1:], axis=1))
    unaligned = np.zeros(4 * 50 + 1, np.uint8)[1:].view(np.float32).reshape(5, 10)
    assert np.array_equal(coordinate.median(unaligned), np.zeros(10))
    frozen = base.T.copy()
    frozen.flags.writeable = False
    assert np.array_equal(coordinate.median(frozen), np.median(base, axis=1))


@given(matrices(most=30))
def test_column_sort_sorts(x):
    assert np.array_equal(coordinate.column_sort(x), np.sort(x, axis=0))


# ---- tensors -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("on_host", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("batch", [(), (3,), (2, 1), (0,)])
def test_tensors_are_batches_of_federations(batch, dtype, on_host, monkeypatch):
    if not on_host:  # the form that runs on devices
        monkeypatch.setattr(tensors, "_on_host", lambda x: False)
        monkeypatch.setattr(tensors, "BLOCK_VALUES", 100)
    x = torch.from_numpy(np.random.default_rng(0).normal(size=(*batch, 7, 33))).to(dtype)
    for rule in (kernels.median, lambda r: kernels.trimmed_mean(r, 2), lambda r: kernels.mean_around_median(r, 3)):
        ours = rule(x)
        assert ours.dtype == dtype
        assert ours.shape == (*batch, 33)
        for index in np.ndindex(*batch):
            exact = rule(x[index].double().numpy())
            assert torch.allclose(
                ours[index].double(), torch.from_numpy(exact), rtol=2 * torch.finfo(dtype).eps, atol=0
            )


# ---- Gram matrices and weighted sums -------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_gram_distances_are_right_where_an_uncentered_product_is_not(dtype):
    rng = np.random.default_rng(0)
    x = (rng.normal(size=20_000) * 50 + 0.05 * rng.normal(size=(9, 20_000))).astype(dtype)
    x[0] = 1e6
    g = gram.centered_gram(x, coordinate.median(x))
    ours = np.sqrt(g.diagonal()[:, None] + g.diagonal() - 2 * g)[1:, 1:]
    exact = np.linalg.norm(x[1:, None].astype(np.float64) - x[None, 1:], axis=2)
    off = ~np.eye(8, dtype=bool)
    assert np.allclose(ours[off], exact[off], rtol=1e-5)


@given(st.floats(-36, 36), st.floats(-36, 36))
def test_gram_neither_overflows_nor_vanishes(a, b):
    x = np.outer([10.0**a, 10.0**b], [1.0, -2.0, 3.0]).astype(np.float32)
    exact = x.astype(np.float64) @ x.astype(np.float64).T
    assert np.allclose(gram.centered_gram(x, np.zeros(3, np.float32)), exact, rtol=1e-5, atol=0)


@given(matrices(most=9, huge=False), st.data())
def test_weighted_sums(x, data):
    w = np.array(data.draw(st.lists(st.floats(0, 1), min_size=len(x), max_size=len(x))))
    exact = (w[:, None] * x.astype(np.float64)).sum(axis=0)
    scale = (w[:, None] * np.abs(x.astype(np.float64))).sum(axis=0)
    assert close(kernels.weighted_sum(x, w), exact, 2 * scale)
    twin = kernels.weighted_sum(torch.from_numpy(np.stack([x, x])), torch.from_numpy(np.stack([w, w])))
    assert close(twin.numpy()[1], exact, 2 * scale)


def test_a_row_of_weight_zero_is_not_read():
    x = np.array([[1.0, 2.0], [np.inf, np.nan]])
    assert np.array_equal(kernels.weighted_sum(x, [1.0, 0.0]), x[0])
    batch = torch.from_numpy(np.stack([x, x]))
    assert torch.equal(kernels.weighted_sum(batch, torch.tensor([[1.0, 0.0]] * 2)), batch[:, 0])


@pytest.mark.parametrize("batch", [(), (2,)])
def test_gram_of_tensors(batch):
    x = torch.randn(*batch, 5, 100, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    center = kernels.median(x)
    moved = x - center.unsqueeze(-2)
    assert torch.allclose(kernels.centered_gram(x, center), moved @ moved.mT)
