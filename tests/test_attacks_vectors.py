"""Fang's attacks against independently computed values, and against a search that knows no trick."""

import json

import numpy as np
import pytest

from holdfast.attacks import UPAKrum, UPAMean, UPATrimmedMean, make
from holdfast.attacks.untargeted import changing_direction, krum_choice, starting_strength
from holdfast.attacks.view import make_view

from .conftest import shared


@pytest.fixture(scope="module")
def vectors():
    return json.loads(shared("vectors/romoa.json").read_text())


@pytest.fixture(scope="module")
def scene(vectors):
    given = vectors["attacks"]
    base, models = np.array(given["base"]), np.array(given["before_attack"])
    updates = models - base
    return {
        "base": base,
        "honest": updates[:4],
        "own": updates[4:],
        "view": make_view(updates[:4], 2, own=updates[4:], reference=base),
        "given": given,
    }


def test_direction(scene):
    np.testing.assert_array_equal(changing_direction(scene["view"]), scene["given"]["direction"])


def test_reverse(scene):
    expected = scene["given"]["reverse_mean"]
    upload = UPAMean(lam=expected["lam"])(
        scene["honest"], 2, own=scene["own"], reference=scene["base"], rng=np.random.default_rng(0)
    )
    np.testing.assert_allclose(upload[0] + scene["base"], expected["model"], atol=1e-12)
    np.testing.assert_array_equal(upload[0], upload[1])
    after = np.concatenate([scene["honest"], upload]).mean(axis=0)
    np.testing.assert_allclose(after, expected["mean_update_after"], atol=1e-12)


@pytest.mark.parametrize("space", ["model", "update"])
def test_trimmed_mean_intervals(scene, space):
    expected = scene["given"]["trimmed_mean_full"][f"{space}_space"]
    attack = UPATrimmedMean(b=2.0, space=space)
    low, high = attack.interval(scene["view"])
    np.testing.assert_allclose(low, expected["low"], atol=1e-12)
    np.testing.assert_allclose(high, expected["high"], atol=1e-12)
    for seed in range(5):
        upload = attack(scene["honest"], 2, own=scene["own"], reference=scene["base"], rng=np.random.default_rng(seed))
        values = upload + (scene["base"] if space == "model" else 0.0)
        assert (values >= low - 1e-12).all()
        assert (values <= high + 1e-12).all()


def test_trimmed_mean_partial_knowledge(scene):
    expected = scene["given"]["trimmed_mean_partial"]
    low, high = UPATrimmedMean(knowledge="own").interval(
        scene["view"].seen_by("own"), np.array(scene["given"]["direction"])
    )
    np.testing.assert_allclose(low, expected["low"], atol=1e-12)
    np.testing.assert_allclose(high, expected["high"], atol=1e-12)


def test_partial_knowledge_estimates_the_direction_from_its_own_rows(scene):
    view = scene["view"].seen_by("own")
    np.testing.assert_array_equal(changing_direction(view), np.sign(scene["own"].mean(axis=0)))
    low, high = UPATrimmedMean(knowledge="own").interval(view)
    models = scene["own"] + scene["base"]
    falling = scene["own"].mean(axis=0) < 0
    for w in range(12):
        ends = (3, 4) if falling[w] else (-4, -3)
        expected = [models[:, w].mean() + k * models[:, w].std() for k in ends]
        np.testing.assert_allclose([low[w], high[w]], expected)


def test_krum_search_trace(scene):
    expected = scene["given"]["krum_full"]
    assert starting_strength(scene["honest"], 2) == pytest.approx(expected["lambda_upper"], rel=1e-12)
    trace = UPAKrum().trace(scene["honest"], np.array(scene["given"]["direction"]), 2)
    assert [pick for _, pick in trace] == [pick for _, pick in expected["trace"]]
    np.testing.assert_allclose([lam for lam, _ in trace], [lam for lam, _ in expected["trace"]], rtol=1e-12)
    upload = UPAKrum()(scene["honest"], 2, own=scene["own"], reference=scene["base"], rng=np.random.default_rng(0))
    np.testing.assert_allclose(upload[0] + scene["base"], expected["model"], atol=1e-12)


def test_krum_itself(vectors):
    assert krum_choice(np.array(vectors["krum"]["points"]), vectors["krum"]["f"]) == vectors["krum"]["selected"]


def brute_krum(rows, f):
    """Scores by their definition, one pair at a time."""
    scores = []
    for i in range(len(rows)):
        distances = sorted(float(((rows[i] - rows[j]) ** 2).sum()) for j in range(len(rows)) if j != i)
        scores.append(sum(distances[: max(1, len(rows) - f - 2)]))
    return scores.index(min(scores))


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("f", [1, 2, 3, 4])
def test_krum_search_finds_what_brute_force_finds(seed, f):
    rng = np.random.default_rng(seed)
    rows = rng.normal(0.3, rng.choice([0.05, 0.3, 2.0]), (10, 6))
    honest, own = rows[: 10 - f], rows[10 - f :]
    signs = np.sign(rows.mean(axis=0))
    lam = starting_strength(honest, f)
    while brute_krum(np.concatenate([honest, np.tile(-lam * signs, (f, 1))]), f) < len(honest) and lam >= 1e-5:
        lam /= 2
    upload = make("upa-krum")(honest, f, own=own, rng=rng)
    np.testing.assert_allclose(upload, np.tile(-lam * signs, (f, 1)), rtol=1e-12)


def test_krum_search_wins_on_spread_updates_and_gives_up_on_close_ones():
    rng = np.random.default_rng(3)
    won = 0
    for _ in range(20):
        honest = rng.normal(0.1, 1.0, (7, 5))
        malicious = make("upa-krum")(honest, 3, rng=rng)
        won += krum_choice(np.concatenate([honest, malicious]), 3) >= 7
    assert won >= 18
    close = np.ones((7, 5)) + rng.normal(0, 1e-9, (7, 5))
    assert np.abs(make("upa-krum")(close, 3, rng=rng)).max() < 1e-5


def test_krum_partial_knowledge_needs_no_honest_row():
    rng = np.random.default_rng(4)
    own = rng.normal(0.1, 1.0, (4, 5))
    attack = make("upa-krum", knowledge="own")
    upload = attack(np.zeros((6, 5)), 4, own=own, rng=rng)
    lam, signs = np.abs(upload[0]), np.sign(own.mean(axis=0))
    np.testing.assert_allclose(upload[0], -lam * signs)
    assert lam[0] > 1e-3


def test_krum_gives_ties_to_the_honest_rows():
    assert UPAKrum().trace(np.zeros((6, 3)), np.zeros(3), 2)[-1][1] == 0
