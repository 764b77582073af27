"""Each attack does what it claims, measured against references that share none of its code."""

import itertools

import numpy as np
import pytest
from scipy.stats import kstest, norm

from holdfast.attacks import Boost, ClientBehavior, make
from holdfast.types import ConfigError


def rows(seed=0, shape=(8, 30), mean=0.3):
    return np.random.default_rng(seed).normal(mean, 1.0, shape)


def call(attack, honest, f, **more):
    return attack(honest, f, rng=np.random.default_rng(1), **more)


class TestReplacement:
    @pytest.mark.parametrize("server_lr", [1.0, 0.3])
    @pytest.mark.parametrize("f", [1, 3])
    def test_replaces_the_model_under_plain_averaging_exactly(self, f, server_lr):
        honest, own, base = rows(), rows(1, (f, 30)), rows(2, (30,))
        attack = make("model-replacement", server_lr=server_lr, knowledge="all")
        malicious = call(attack, honest, f, own=own, reference=base)
        model = base + server_lr * np.concatenate([honest, malicious]).mean(axis=0)
        np.testing.assert_allclose(model, base + own.mean(axis=0), rtol=1e-12)

    def test_weights_count(self):
        honest, own = rows(), rows(1, (2, 30))
        weights = np.random.default_rng(3).integers(1, 100, 10).astype(float)
        malicious = call(make("model-replacement", knowledge="all"), honest, 2, own=own, weights=weights)
        mean = np.average(np.concatenate([honest, malicious]), axis=0, weights=weights)
        np.testing.assert_allclose(mean, own.mean(axis=0), rtol=1e-10)
        with pytest.raises(ConfigError, match="no weight"):
            call(make("model-replacement", knowledge="all"), honest, 2, own=own, weights=weights * (np.arange(10) < 8))

    def test_without_seeing_honest_rows_it_replaces_when_they_cancel(self):
        honest, own = rows(), rows(1, (2, 30))
        honest -= honest.mean(axis=0)
        malicious = call(make("model-replacement", server_lr=0.5), honest, 2, own=own)
        moved = 0.5 * np.concatenate([honest, malicious]).mean(axis=0)
        np.testing.assert_allclose(moved, own.mean(axis=0), atol=1e-12)

    def test_constant_factor_of_the_paper(self):
        own = rows(1, (1, 30))
        np.testing.assert_allclose(call(make("model-replacement", factor=100.0), rows(), 1, own=own), 100 * own)


class TestNoise:
    def test_factor_is_gaussian_around_one(self):
        own, base = rows(1, (1, 4000)), rows(2, (4000,))
        malicious = call(make("gaussian-noise", std=0.7), rows(0, (2, 4000)), 1, own=own, reference=base)
        factor = (base + malicious[0]) / (base + own[0])
        assert kstest(factor, norm(1.0, 0.7).cdf).pvalue > 1e-3

    def test_no_noise_changes_nothing_even_next_to_a_large_model(self):
        own = np.full((1, 3), 1e-12)
        malicious = call(make("gaussian-noise", std=0.0), np.zeros((2, 3)), 1, own=own, reference=np.full(3, 1e6))
        np.testing.assert_array_equal(malicious, own)

    def test_random_update_is_noise_of_its_size(self):
        malicious = call(make("random-update", std=3.0), rows(0, (2, 4000)), 1)
        assert kstest(malicious[0], norm(0, 3).cdf).pvalue > 1e-3


class TestALittleIsEnough:
    @pytest.mark.parametrize(("n", "f"), [(10, 1), (10, 4), (11, 4), (50, 12), (50, 24), (51, 24)])
    def test_z_is_the_normal_quantile(self, n, f):
        supporters = np.floor(n / 2 + 1) - f
        expected = max(0.0, norm.ppf((n - f - supporters) / (n - f)))  # one of ten cannot hide behind five others
        assert make("a-little-is-enough").shift(n, f) == pytest.approx(expected)
        published = make("a-little-is-enough", population="all").shift(n, f)
        assert published == pytest.approx(norm.ppf((n - supporters) / n))

    def test_supporters_and_attackers_are_a_majority(self):
        n, f, d = 50, 20, 20_000
        honest = np.random.default_rng(0).normal(size=(n - f, d))
        malicious = call(make("a-little-is-enough"), honest, f)
        beyond = (honest < malicious[0]).sum(axis=0).mean()
        assert beyond + f == pytest.approx(n // 2 + 1, abs=0.5)

    def test_shift_of_the_mean_in_standard_deviations(self):
        honest = rows()
        np.testing.assert_allclose(
            call(make("a-little-is-enough", z=1.5), honest, 2)[1], honest.mean(0) - 1.5 * honest.std(0)
        )

    def test_majority_of_attackers_stays_finite(self):
        assert np.isfinite(make("a-little-is-enough").shift(10, 9))
        assert make("a-little-is-enough").shift(10, 0) >= 0


def feasible(name, honest, upload):
    """The two bounds, by their definition."""
    pairs = list(itertools.product(range(len(honest)), repeat=2))
    if name == "min-max":
        bound = max(np.linalg.norm(honest[i] - honest[j]) for i, j in pairs)
        return max(np.linalg.norm(upload - row) for row in honest) <= bound * (1 + 1e-9)
    bound = max(sum(np.sum((a - b) ** 2) for b in honest) for a in honest)
    return sum(np.sum((upload - row) ** 2) for row in honest) <= bound * (1 + 1e-9)


@pytest.mark.parametrize("name", ["min-max", "min-sum"])
@pytest.mark.parametrize("direction", ["std", "mean", "sign"])
@pytest.mark.parametrize("seed", range(3))
def test_distance_bounds_are_met_and_tight(name, direction, seed):
    honest = rows(seed, (6, 9), mean=0.5)
    mean = honest.mean(axis=0)
    upload = call(make(name, direction=direction), honest, 2)[0]
    assert feasible(name, honest, upload)
    assert not feasible(name, honest, mean + 1.001 * (upload - mean))
    # brute force along the same line, from its own end
    path = {"std": -honest.std(axis=0), "mean": -mean / np.linalg.norm(mean), "sign": -np.sign(mean)}[direction]
    low, high = 0.0, 1e4
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if feasible(name, honest, mean + middle * path) else (low, middle)
    np.testing.assert_allclose(upload, mean + low * path, atol=1e-6)


def test_inner_product_with_the_mean_turns_negative():
    honest = rows(mean=1.0)
    malicious = call(make("inner-product-manipulation", epsilon=7.0), honest, 2)
    after = np.concatenate([honest, malicious]).mean(axis=0)
    assert after @ honest.mean(axis=0) < 0


def test_reverse_makes_the_average_go_back():
    honest, own = rows(), rows(1, (3, 30))
    malicious = call(make("upa-mean", lam=1.0), honest, 3, own=own)
    before = np.concatenate([honest, own]).mean(axis=0)
    np.testing.assert_allclose(np.concatenate([honest, malicious]).mean(axis=0), -before, atol=1e-12)


def test_trimmed_mean_attack_moves_it_against_its_direction_more_than_the_honest_range_allows():
    honest, base = rows(mean=0.0), rows(2, (30,))
    malicious = call(make("upa-trimmed-mean"), honest, 3, reference=base)
    stacked = np.concatenate([honest, malicious])
    trimmed = np.sort(stacked, axis=0)[3:-3].mean(axis=0)
    direction = np.sign(np.concatenate([honest, honest[:3]]).mean(axis=0))
    assert ((trimmed - honest.mean(axis=0)) * direction <= 1e-12).all()
    assert ((malicious >= honest.max(axis=0) - 1e-12) | (malicious <= honest.min(axis=0) + 1e-12)).all()


def test_mimic_copies_an_honest_row():
    honest = rows()
    malicious = call(make("mimic"), honest, 3)
    assert any(np.array_equal(malicious[0], row) for row in honest)
    np.testing.assert_array_equal(call(make("mimic", client=4), honest, 1)[0], honest[4])


def test_disguise_has_the_honest_angle_and_length_in_every_layer():
    honest, own = rows(mean=1.0), rows(5, (2, 30), mean=-3.0)
    layout = [slice(0, 12), slice(12, 30)]
    upload = call(make("disguise", stretch=2.0), honest, 2, own=own, layout=layout)[0]
    for layer in layout:
        part, heading = honest[:, layer], honest[:, layer].mean(axis=0)
        cosines = part @ heading / np.linalg.norm(part, axis=1) / np.linalg.norm(heading)
        length = np.linalg.norm(upload[layer])
        assert length == pytest.approx(2 * np.median(np.linalg.norm(part, axis=1)))
        assert upload[layer] @ heading / length / np.linalg.norm(heading) == pytest.approx(np.median(cosines))
        aside = own.mean(axis=0)[layer] - (own.mean(axis=0)[layer] @ heading) * heading / (heading @ heading)
        assert upload[layer] @ aside > 0  # and it still pulls


def test_scaling_mixes_and_stretches():
    honest, own = rows(), rows(1, (1, 30))
    np.testing.assert_allclose(call(make("scaling", factor=20.0), honest, 1, own=own)[0], 20 * honest.mean(axis=0))
    mixed = call(make("scaling", factor=10.0, own_share=0.3), honest, 1, own=own)[0]
    np.testing.assert_allclose(mixed, 7 * honest.mean(axis=0) + 3 * own[0])


class TestWrappers:
    def test_stealth_is_a_line_from_honest_to_attack(self):
        honest, own = rows(), rows(1, (2, 30))
        attack = make("upa-mean")
        full = call(attack, honest, 2, own=own)
        for alpha in (0.0, 0.3, 1.0):
            near = call(make("stealth", attack=attack, alpha=alpha), honest, 2, own=own)
            np.testing.assert_allclose(near, (1 - alpha) * own + alpha * full)
            around = make("stealth", attack=attack, alpha=alpha, around="reference")
            np.testing.assert_allclose(call(around, honest, 2, own=own), alpha * full)

    def test_stealth_per_round(self):
        attack = make("stealth", attack=make("sign-flip"), alpha=(0.0, 1.0))
        own = rows(1, (1, 30))
        for number, expected in ((0, own), (1, -own), (9, -own)):
            np.testing.assert_array_equal(call(attack, rows(), 1, own=own, round=number), expected)

    def test_blend_keeps_each_parameter_with_the_mix_rate(self):
        d = 20_000
        honest, own = np.zeros((4, d)), np.ones((2, d))
        for rate in (0.0, 0.1, 1.0):
            share = call(make("blend", mix_rate=rate), honest, 2, own=own).mean(axis=1)
            np.testing.assert_allclose(share, rate, atol=0.01)
        mixed = call(make("blend", mix_rate=0.5), honest, 2, own=own)
        assert not np.array_equal(mixed[0], mixed[1])

    def test_blend_hides_behind_one_honest_model(self):
        honest = np.arange(5.0)[:, None] * np.ones(40)
        mixed = call(make("blend", mix_rate=0.4), honest, 3, own=np.full((3, 40), -1.0))
        for row in mixed:
            assert len(np.unique(row[row >= 0])) == 1

    def test_boost_outweighs_averaging(self):
        own = rows(1, (2, 30))
        np.testing.assert_allclose(call(Boost(), rows(), 2, own=own), own * 5)
        np.testing.assert_allclose(call(Boost(factor=3.0), rows(), 2, own=own), own * 3)

    @pytest.mark.parametrize(("rounds", "expected"), [("every", [0, 1, 2, 3, 4]), ("once", [2]), ("from", [2, 3, 4])])
    def test_schedule(self, rounds, expected):
        attack = make("schedule", attack=make("sign-flip"), rounds=rounds, at=2)
        nested = make("stealth", attack=attack)
        own = rows(1, (1, 30))
        for number in range(5):
            due = number in expected
            assert attack.active(number) == nested.active(number) == due
            np.testing.assert_array_equal(call(attack, rows(), 1, own=own, round=number), -own if due else own)

    def test_collusion_shares_one_vector(self):
        own = rows(1, (3, 30))
        alone = call(make("gaussian-noise"), rows(), 3, own=own)
        together = call(make("collusion", attack=make("gaussian-noise")), rows(), 3, own=own)
        assert not np.array_equal(alone[0], alone[1])
        np.testing.assert_array_equal(together, np.tile(alone[0], (3, 1)))

    def test_wrapper_knows_what_its_attack_knows(self):
        assert make("stealth", attack=make("sign-flip")).knowledge == "own"
        assert make("stealth", attack=make("adaptive")).knowledge == "rule"
        assert make("blend", attack=make("sign-flip")).knowledge == "all"


def test_client_behavior():
    assert ClientBehavior(effort=2.0).steps(5) == 10
    assert ClientBehavior().steps(5) == 5
    for wrong in ({"effort": -1.0}, {"lr": 0.0}):
        with pytest.raises(ConfigError):
            ClientBehavior(**wrong)
