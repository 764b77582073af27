"""Romoa's own promises: shares that sum to one, memory by client, hostile uploads, and both known holes."""

import math
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.aggregation import make
from holdfast.aggregation.romoa import PRESETS, FactorState, Romoa, Syncing, majority_window, measures
from holdfast.aggregation.romoa.factors import scores
from holdfast.aggregation.romoa.measures import select
from holdfast.aggregation.romoa.state import layer_bounds
from holdfast.aggregation.stacking import stack
from holdfast.types import ConfigError

LAYOUT = [slice(0, 20), slice(20, 21), slice(21, 40)]


def uploads(seed=0, n=8, d=40, spread=0.5, lead=()):
    rng = np.random.default_rng(seed)
    common = rng.normal(size=(*lead, 1, d))
    return common + spread * rng.normal(size=(*lead, n, d))


def dense(state):
    return np.array([state.factors(client) for client in state.clients])


@pytest.mark.parametrize("preset", PRESETS)
@given(st.integers(1, 9), st.integers(1, 30), st.integers(0, 1000), st.booleans())
def test_factors_sum_to_one_within_a_rounding(preset, n, d, seed, elementwise):
    rule, state = Romoa(preset, elementwise=elementwise), None
    for step in range(3):
        state = rule.lookahead(uploads(seed + step, n, d), state=state)
        total = dense(state).sum(axis=0)
        np.testing.assert_allclose(total, 1.0, atol=n * 2.3e-16)
        assert (dense(state) >= 0).all()


@given(st.integers(0, 1000))
def test_permuting_participants_permutes_the_factors(seed):
    rng = np.random.default_rng(seed)
    order = rng.permutation(8)
    ids = np.array(list("abcdefgh"))
    rule, plain, mixed = Romoa(), None, None
    for step in range(2):
        rows = uploads(seed + step)
        plain = rule.aggregate(rows, state=plain and plain.state, layout=LAYOUT, clients=ids)
        mixed = rule.aggregate(rows[order], state=mixed and mixed.state, layout=LAYOUT, clients=ids[order])
        np.testing.assert_allclose(mixed.value, plain.value, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(mixed.client_weights, plain.client_weights[order], rtol=1e-9)
        for client in ids:
            np.testing.assert_allclose(mixed.state.factors(client), plain.state.factors(client), rtol=1e-9)


def test_batch_is_a_loop():
    first, second = uploads(1, lead=(3,)), uploads(2, lead=(3,))
    rule = Romoa()
    watched = rule.lookahead(first, layout=LAYOUT)
    together = rule.aggregate(second, state=watched, layout=LAYOUT)
    for i in range(3):
        alone = rule.aggregate(second[i], state=rule.lookahead(first[i], layout=LAYOUT), layout=LAYOUT)
        np.testing.assert_array_equal(together.value[i], alone.value)
        np.testing.assert_array_equal(dense(together.state[i]), dense(alone.state))


@pytest.mark.parametrize("preset", ["default", "paper-momentum", "raw10"])
def test_scaling_all_updates_leaves_the_factors(preset):
    rows = uploads()
    for factor in (1e-6, 3.0, 1e6):
        scaled = Romoa(preset).lookahead(rows * factor, layout=LAYOUT)
        np.testing.assert_allclose(dense(scaled), dense(Romoa(preset).lookahead(rows, layout=LAYOUT)), rtol=1e-6)


def test_without_cap_and_clip_the_aggregate_is_the_sum_of_factors_times_models():
    rule, state = Romoa("paper-momentum"), None
    base = np.random.default_rng(5).normal(size=40)
    for step in range(3):
        models = base + uploads(step)
        result = rule.aggregate(models, state=state, layout=LAYOUT, reference=base)
        state = result.state
        np.testing.assert_allclose(result.value, (dense(state) * models).sum(axis=0), rtol=1e-9)


def test_a_constant_outlier_fades_by_half_each_step():
    rule, state = Romoa(elementwise=False), None
    for step in range(1, 8):
        rows = uploads(step, spread=0.05)
        rows[7] = -3.0 * rows[0]
        state = rule.lookahead(rows, state=state)
        np.testing.assert_allclose(state.factors(7), 0.5**step / 8, rtol=1e-6)
    assert state.suppressed() == {7: 1}


def test_identical_uploads_share_equally():
    state = Romoa().lookahead(np.tile(uploads()[0], (6, 1)))
    np.testing.assert_allclose(dense(state), np.full((6, 40), 1 / 6), rtol=1e-15)


def test_zero_and_constant_updates_are_uncorrelated_not_nan():
    rows = uploads()
    rows[2], rows[3] = 0.0, 1.7
    state = Romoa().lookahead(rows, layout=LAYOUT)
    assert (state.verdict.cosine[2] == 0).all()
    assert (state.verdict.pearson[[2, 3]] == 0).all()
    assert np.isfinite(dense(state)).all()


@given(st.floats(1e-3, 1e3), st.integers(0, 500))
def test_window_units_do_not_depend_on_the_measure_s_unit(constant, seed):
    values = np.random.default_rng(seed).normal(size=(9, 3))
    options = {"sided": "two", "units": "window", "min_window": 1e-6}
    np.testing.assert_allclose(scores(constant * values, **options), scores(values, **options), rtol=1e-9, atol=1e-9)
    raw = {**options, "units": "raw"}
    np.testing.assert_allclose(scores(constant * values, **raw), constant * scores(values, **raw), rtol=1e-9)


def test_one_participant_is_the_model_and_two_share_alike():
    """No majority, no defense: whatever the second uploads, it counts for half (up to its length)."""
    rows = uploads(n=2)
    alone = Romoa().aggregate(rows[:1], layout=LAYOUT)
    np.testing.assert_allclose(alone.value, rows[0], rtol=1e-12)
    assert (dense(alone.state) == 1).all()
    rows[1] = -rows[0] + 0.1 * rows[1]
    together = Romoa("paper-momentum").aggregate(rows, layout=LAYOUT)
    np.testing.assert_allclose(dense(together.state), 0.5, atol=1e-3)
    np.testing.assert_allclose(together.value, rows.mean(axis=0), atol=1e-2)


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=12))
def test_majority_window_by_brute_force(values):
    run = len(values) // 2 + 1
    ranked = sorted(values)
    starts = range(len(values) - run + 1)
    best = min(starts, key=lambda i: (ranked[i + run - 1] - ranked[i], i))
    chosen = ranked[best : best + run]
    center, half = majority_window(np.array(values))
    assert center == pytest.approx(sum(chosen) / run, rel=1e-9, abs=1e-9)
    assert half == (chosen[-1] - chosen[0]) / 2


@given(st.integers(0, 500), st.sampled_from([np.float32, np.float64]), st.integers(1, 30))
def test_selection_by_sorting(seed, dtype, count):
    rng = np.random.default_rng(seed)
    rows = rng.choice([0.0, 1.0, -1.0, 2.5, 1e-30, -1e30], (4, 30)).astype(dtype)
    if seed % 2:
        rows = rng.normal(size=(4, 30)).astype(dtype) * dtype(10.0) ** rng.integers(-30, 15, (4, 30))
    usable = np.array([True, True, False, True])
    expected = set()
    for row in rows[usable]:
        expected |= set(np.argsort(-np.abs(row), kind="stable")[:count].tolist())
    assert select(stack(rows).federations[0], usable, count).tolist() == sorted(expected)


class TestStreaming:
    def test_a_block_is_read_in_any_width_and_layout(self):
        rows = uploads(d=5000).astype(np.float32)
        layout = [slice(0, 1237), slice(1237, 5000)]
        expected = Romoa().aggregate(rows, layout=layout)
        for other in (list(rows), np.asfortranarray(rows), np.repeat(rows, 2, axis=1)[:, ::2]):
            result = Romoa().aggregate(other, layout=layout)
            np.testing.assert_allclose(result.value, expected.value, rtol=1e-6, atol=1e-7)
            np.testing.assert_allclose(dense(result.state), dense(expected.state), rtol=1e-6)

    def test_correlation_survives_a_large_mean_in_float32(self):
        rng = np.random.default_rng(0)
        rows = (100.0 + rng.normal(size=(5, 4000))).astype(np.float32)
        found = Romoa(elementwise=False).lookahead(rows).verdict.pearson[:, 0]
        wide = rows.astype(np.float64)
        expected = [np.corrcoef(row, wide.mean(axis=0))[0, 1] for row in wide]
        np.testing.assert_allclose(found, expected, atol=1e-8)

    def test_elementwise_factors_return_to_their_layer(self):
        rule = Romoa()
        state = rule.lookahead(uploads(0, d=200))
        kept = len(state.indices)
        assert 0 < kept < 200
        rows = np.zeros((8, 200))
        rows[:, :25] = uploads(1, d=25)  # from now on the selection is the same 25 parameters
        for _ in range(26):
            state = rule.lookahead(rows, state=state)
        assert set(state.indices) <= set(range(25))
        assert state.elements.shape == (8, len(state.indices))

    @pytest.mark.parametrize("preset", PRESETS)
    def test_sparse_memory_is_the_dense_one(self, preset):
        """The same steps with dense arrays, written out."""
        rule, state = Romoa(preset, select_ratio=0.02), None
        factors = np.full((8, 300), 1 / 8)
        for step in range(8):
            rows = uploads(step, d=300)
            state = rule.lookahead(rows, state=state)
            chosen = sorted({int(w) for row in rows for w in np.argsort(-np.abs(row), kind="stable")[:6]})
            score = dense_scores(rows, chosen, PRESETS[preset])
            weights = np.exp(PRESETS[preset]["sharpness"] * score)
            factors = 0.5 * weights / weights.sum(axis=0) + 0.5 * factors
            np.testing.assert_allclose(dense(state), factors, rtol=1e-9)


def dense_scores(rows, chosen, preset):
    """Least score of every participant at every parameter, from the definitions."""
    mean = rows.mean(axis=0)
    norms = np.linalg.norm(rows, axis=1) * np.linalg.norm(mean)
    cosine = rows @ mean / norms
    if preset["pearson"] == "printed":
        pearson = cosine / (rows.std(axis=1) * mean.std())
    else:
        pearson = np.array([np.corrcoef(row, mean)[0, 1] for row in rows])

    def distance(values):
        center, half = majority_window(values)
        away = values - center if preset["sided"] == "one" else -np.abs(values - center)
        return away, max(half.max(), 0.01) if preset["units"] == "window" else 1.0

    whole = np.full(len(rows), np.inf)
    for values in (cosine, pearson):
        away, unit = distance(values)
        whole = np.minimum(whole, np.maximum(away / unit, -50.0 if preset["units"] == "window" else -np.inf))
    score = np.tile(np.minimum(whole, 0.0)[:, None], rows.shape[1])
    part = rows[:, chosen] * mean[chosen]
    part /= (np.linalg.norm(rows[:, chosen], axis=1) * np.linalg.norm(mean[chosen]))[:, None]
    score[:, chosen] = np.minimum(whole[:, None], distance(part)[0])
    return score


class TestHostileUploads:
    @pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf, 1e38, None])
    def test_an_unusable_upload_has_no_say_and_loses_half(self, poison):
        rows = uploads(spread=0.1)
        honest = Romoa("paper-momentum").aggregate(rows[:7], clients=range(7))
        sent = [row.astype(np.float32) for row in rows]
        sent[7] = None if poison is None else np.full(40, poison, np.float32)
        result = Romoa("paper-momentum").aggregate(sent)
        assert result.replaced[7]
        np.testing.assert_allclose(result.state.factors(7), 0.5 / 8, rtol=1e-6)
        assert result.client_weights[7] == 0
        np.testing.assert_allclose(result.state.verdict.weights[:7], honest.state.verdict.weights, rtol=1e-4)
        np.testing.assert_allclose(dense(result.state).sum(axis=0), 1.0, rtol=1e-6)
        assert np.abs(result.value - honest.value).max() < 0.1

    def test_nobody_usable_keeps_the_model_and_the_memory(self):
        base = np.arange(40.0)
        state = Romoa().lookahead(uploads())
        result = Romoa().aggregate(np.full((8, 40), np.nan), state=state, reference=base)
        np.testing.assert_array_equal(result.value, base)
        np.testing.assert_array_equal(dense(result.state), dense(state))

    def test_four_of_ten_colluders_are_muted(self):
        rows = uploads(3, n=10, spread=0.3)
        rows[6:] = -4.0 * rows[:6].mean(axis=0)
        rule = Romoa()
        state = None
        for _ in range(4):
            state = rule.lookahead(rows, state=state)
        result = rule.aggregate(rows, state=state)
        assert result.client_weights[6:].sum() < 0.01
        literal = Romoa("literal").aggregate(rows)
        honest = rows[:6].mean(axis=0)
        assert literal.value @ honest < 0 < result.value @ honest  # the printed rule follows the attackers


class TestHoles:
    """The two weaknesses of the published rule: open without cap and clip, closed with them."""

    def poisoned_only_at_the_syncing_step(self, **params):
        rule, state = Romoa("paper-momentum", **params), None
        for _ in range(4):
            state = rule.lookahead(uploads(0, n=10, spread=0.1), state=state)
        rows = uploads(0, n=10, spread=0.1)
        honest = rows[:9].mean(axis=0)
        rows[9] = -100.0 * honest
        return rule.aggregate(rows, state=state), honest

    def test_memory(self):
        result, honest = self.poisoned_only_at_the_syncing_step()
        assert result.value @ honest < 0
        assert result.client_weights[9] > 0.01
        result, honest = self.poisoned_only_at_the_syncing_step(cap=True)
        assert result.client_weights[9] < 1e-6
        np.testing.assert_allclose(result.value, honest, atol=0.2)

    def test_magnitude(self):
        rows = uploads(1, n=10, spread=0.1)
        honest = rows[:6].mean(axis=0)
        rows[6:] = 20.0 * honest
        assert Romoa("paper-momentum").aggregate(rows).value @ honest > 5 * honest @ honest
        assert Romoa("paper-momentum", clip=2.0).aggregate(rows).value @ honest < 2.1 * honest @ honest
        assert Romoa().aggregate(rows).diagnostics["clip_factor"][9] < 0.2


class TestSampling:
    def test_memory_follows_the_client_not_the_row(self):
        rule = Romoa(elementwise=False)
        rows = uploads(spread=0.05)
        rows[0] = -rows[0]
        state = rule.lookahead(rows, clients="abcdefgh")
        again = rule.lookahead(rows[[3, 0, 5]], state=state, clients="dax")
        assert again.clients == tuple("abcdefghx")
        np.testing.assert_array_equal(again.factors("b"), state.factors("b"))  # not in the sample: unchanged
        sampled = np.array([again.factors(client) for client in "dax"])
        np.testing.assert_allclose(sampled.sum(axis=0), 1.0, rtol=1e-12)

    def test_shares_of_a_sample_sum_to_one_at_every_parameter(self):
        rule = Romoa()
        state = rule.lookahead(uploads(), clients="abcdefgh")
        again = rule.lookahead(uploads(1, n=3), state=state, clients="dax")
        assert len(again.indices) > 0
        sampled = np.array([again.factors(client) for client in "dax"])
        np.testing.assert_allclose(sampled.sum(axis=0), 1.0, rtol=1e-12)

    def test_a_new_client_starts_at_an_equal_share(self):
        rule = Romoa(elementwise=False)
        rows = np.tile(uploads()[0], (4, 1))
        state = rule.lookahead(rows, state=rule.lookahead(rows, clients="abcd"), clients="abcx")
        np.testing.assert_allclose(dense(state)[[0, 1, 2, 4]], 0.25)


class TestState:
    def test_figures(self):
        state = Romoa().lookahead(uploads(n=5), layout=LAYOUT)
        counts = state.histogram(np.linspace(0, 1, 11))
        assert counts.shape == (5, 10)
        assert (counts.sum(axis=1) == 40).all()
        for row, client in zip(counts, state.clients, strict=True):
            np.testing.assert_array_equal(row, np.histogram(state.factors(client), np.linspace(0, 1, 11))[0])
        np.testing.assert_allclose(state.mean_factors(), dense(state).mean(axis=1))

    def test_suppressed_since(self):
        rule, state = Romoa(elementwise=False), None
        for step in range(1, 6):
            rows = uploads(9, spread=0.05)
            if step >= 3:
                rows[2] = -rows[2]
            state = rule.lookahead(rows, state=state)
        assert state.suppressed()[2] == 3

    def test_memory_is_not_changed_in_place(self):
        rule = Romoa()
        state = rule.lookahead(uploads())
        before = dense(state).copy()
        rule.aggregate(uploads(1), state=state)
        np.testing.assert_array_equal(dense(state), before)

    @pytest.mark.parametrize(
        ("call", "said"),
        [
            (lambda state: Romoa().lookahead(uploads(d=41), state=state), "another federation"),
            (lambda state: Romoa().lookahead(uploads(), state=state, layout=[slice(0, 20), slice(20, 40)]), "another"),
            (lambda state: Romoa().aggregate(uploads(), state={"a": 1}), "state must be"),
            (lambda state: Romoa().aggregate(uploads(), layout=[slice(0, 39)]), "layout covers 39"),
            (lambda state: Romoa().aggregate(uploads(), layout=[slice(0, 9), slice(10, 40)]), "cannot follow 9"),
            (lambda state: state.factors("z"), "client 'z'"),
            (lambda state: make("romoa", preset="paper"), "paper-momentum"),
            (lambda state: make("romoa", beta=0.0), "beta"),
            (lambda state: make("romoa", beta=1.5), "beta"),
            (lambda state: make("romoa", sided="both"), "sided"),
            (lambda state: make("romoa", clip=0.0), "clip"),
            (lambda state: Syncing(tau=0), "tau"),
            (lambda state: Syncing(tau=1.5), "tau"),
            (lambda state: Syncing(moving_rate=0.0), "moving_rate"),
            (lambda state: Syncing(moving_rate=1.1), "moving_rate"),
        ],
    )
    def test_what_does_not_fit_is_one_sentence(self, call, said):
        with pytest.raises(ConfigError) as refusal:
            call(Romoa().lookahead(uploads()))
        assert said in str(refusal.value)
        assert "\n" not in str(refusal.value)


def test_presets_fill_only_what_is_open():
    assert Romoa() == Romoa("default", cap=True, clip=2.0, sharpness=1.0)
    assert Romoa("raw10").sharpness == 10.0
    assert Romoa("raw10", sharpness=3.0).sharpness == 3.0
    assert math.isinf(Romoa("literal").clip)
    assert isinstance(Romoa().lookahead(uploads()), FactorState)


def test_small_layers_join_their_neighbor():
    layout = [slice(0, 3), slice(3, 20), slice(20, 22), slice(22, 40)]
    assert layer_bounds(layout, 40, least=8) == (0, 22, 40)
    assert layer_bounds([slice(0, 3), slice(3, 5)], 5, least=8) == (0, 5)
    assert layer_bounds(None, 7, least=8) == (0, 7)
    assert layer_bounds([slice(0, 3), slice(3, 5)], 5, least=1) == (0, 3, 5)


@given(st.integers(1, 9), st.floats(0.1, 1.0))
def test_syncing(tau, rate):
    syncing = Syncing(tau, rate)
    assert [t for t in range(1, 30) if syncing.due(t)] == list(range(tau, 30, tau))
    assert syncing.moved(3.0, 1.0) == pytest.approx(3.0 - rate * 2.0)


@pytest.mark.parametrize("call", ["lookahead", "aggregate"])
def test_single_parameters_take_one_number_each_beside_the_memory(call, monkeypatch):
    monkeypatch.setattr(measures, "SLICE", 256)  # what is computed at a time, so small that it does not count
    rows, rule = uploads(n=50, d=200_000, spread=2.0).astype(np.float32), Romoa()
    getattr(rule, call)(rows)  # compiled code and the like
    tracemalloc.start()
    found = getattr(rule, call)(rows)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    state = found if call == "lookahead" else found.state
    assert len(state.indices) > 50_000
    assert peak < 1.5 * state.elements.nbytes
