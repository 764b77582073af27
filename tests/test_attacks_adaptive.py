"""The adaptive attack: at least as harmful as every fixed one of its family, and deterministic."""

import numpy as np
import pytest

from holdfast.attacks import Adaptive, make


def rows(seed, n=9, d=40, mean=0.4, lead=()):
    return np.random.default_rng(seed).normal(mean, 1.0, (*lead, n, d))


def median(stacked):
    return np.median(stacked, axis=-2)


def trimmed(stacked):
    return np.sort(stacked, axis=-2)[..., 3:-3, :].mean(axis=-2)


def suspicious(stacked):
    """Leaves out every row farther from the median than 1.2 median distances: accepts or rejects whole rows."""
    center = median(stacked)
    distance = np.linalg.norm(stacked - center[..., None, :], axis=-1)
    kept = distance <= 1.2 * np.median(distance, axis=-1, keepdims=True)
    return (stacked * kept[..., None]).sum(axis=-2) / kept.sum(axis=-1)[..., None]


RULES = [median, trimmed, suspicious]


def goal(honest):
    return -honest.mean(axis=0) / np.linalg.norm(honest.mean(axis=0))


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("aim", ["any", "residual-reweighting", "romoa"])
def test_reported_damage_is_the_damage(rule, aim):
    honest = rows(1)
    found = Adaptive(aim=aim).search(honest, 3, rule=rule)
    output = rule(np.concatenate([honest, np.tile(found.upload, (3, 1))]))
    assert found.displacement == pytest.approx((output - honest.mean(axis=0)) @ goal(honest))
    upload = Adaptive(aim=aim)(honest, 3, rule=rule, rng=np.random.default_rng(0))
    np.testing.assert_array_equal(upload, np.tile(found.upload, (3, 1)))


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("seed", range(3))
def test_no_strength_on_a_fine_grid_is_much_better(rule, seed):
    honest = rows(seed)
    mean, p = honest.mean(axis=0), goal(honest)
    spread = np.median(np.linalg.norm(honest - mean, axis=1))

    def damage(g):
        return (rule(np.concatenate([honest, np.tile(mean + g * spread * p, (3, 1))])) - mean) @ p

    best = max(damage(g) for g in np.geomspace(1e-2, 1e3, 4000))
    found = Adaptive().search(honest, 3, rule=rule)
    assert found.displacement >= 0.97 * best


def test_it_stays_below_what_the_rule_rejects():
    honest = rows(2)
    found = Adaptive().search(honest, 3, rule=suspicious)
    assert found.displacement > 0.05
    assert found.strength < 50  # a strong push would be left out and do nothing


def test_more_families_never_do_less():
    for seed in range(4):
        honest = rows(seed)
        plain = Adaptive().search(honest, 3, rule=suspicious).displacement
        for aim in ("residual-reweighting", "romoa"):
            assert Adaptive(aim=aim, refine=0).search(honest, 3, rule=suspicious).displacement >= (
                Adaptive(refine=0).search(honest, 3, rule=suspicious).displacement
            )
        assert plain >= Adaptive(refine=0).search(honest, 3, rule=suspicious).displacement


def test_it_beats_the_fixed_attacks_on_what_it_optimizes():
    honest, rng = rows(5), np.random.default_rng(0)
    mean, p = honest.mean(axis=0), goal(honest)

    def damage(malicious):
        return (trimmed(np.concatenate([honest, malicious])) - mean) @ p

    strongest = damage(Adaptive()(honest, 3, rule=trimmed, rng=rng))
    for name in ("inner-product-manipulation", "a-little-is-enough", "min-sum", "mimic", "sign-flip"):
        assert strongest >= damage(make(name)(honest, 3, rng=rng)) - 1e-9, name


def test_towards_the_own_poisoned_update():
    honest, own = rows(6), rows(7, n=3, mean=-1.0)
    found = Adaptive(direction="own").search(honest, 3, rule=median, own=own)
    towards = own.mean(axis=0) - honest.mean(axis=0)
    moved = median(np.concatenate([honest, np.tile(found.upload, (3, 1))])) - honest.mean(axis=0)
    assert moved @ towards > 0


def test_batches_are_searched_one_by_one():
    honest = rows(8, lead=(4,))
    together = Adaptive(aim="romoa").search(honest, 3, rule=suspicious)
    for i in range(4):
        alone = Adaptive(aim="romoa").search(honest[i], 3, rule=suspicious)
        np.testing.assert_allclose(together.upload[i], alone.upload)
        assert together.names[together.shape[i]] == alone.names[int(alone.shape)]


def test_a_rule_that_returns_nonsense_does_not_stop_the_attacker():
    def breaks(stacked):
        value = stacked.mean(axis=-2)
        return np.where(np.abs(stacked).max() > 10, np.nan, value)

    found = Adaptive().search(rows(9), 3, rule=breaks)
    assert np.isfinite(found.displacement)
    assert np.isfinite(found.upload).all()
