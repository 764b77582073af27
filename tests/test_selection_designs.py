"""Selections of examples as designs: redrawn from the seed, drawn with the right probabilities, kept with the votes."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.certification import certify_ideal, radius
from holdfast.certification.selection import SCHEMES, delta
from holdfast.ensemble import Votes, make_design
from holdfast.types import ConfigError

probabilities = st.fractions(Fraction(1, 50), Fraction(49, 50), max_denominator=50)


@given(st.integers(1, 40), st.integers(1, 6), st.data())
def test_draws_with_replacement(n, models, data):
    k = data.draw(st.integers(1, n))
    design = make_design("replacement", n=n, k=k, n_models=models, seed="a")
    for model in range(models):
        draws = design.draws(model)
        assert len(draws) == k
        assert set(draws) == set(design.members(model))
        assert (np.diff(draws) >= 0).all()
    assert design.verify("a")
    assert not design.verify("b")
    first = design.prefix(1)
    np.testing.assert_array_equal(first.membership, design.membership[:1])
    with pytest.raises(ConfigError, match="follows from the seed"):
        design.without_seed().draws(0)


@given(st.integers(1, 40), st.integers(1, 6), probabilities)
def test_binomial_selections(n, models, p):
    design = make_design("binomial", n=n, n_models=models, seed="a", p=p)
    assert design.expected_size == p * n
    assert design.verify("a")
    assert design.fingerprint != make_design("binomial", n=n, n_models=models, seed="a", p=p / 2).fingerprint
    np.testing.assert_array_equal(design.draws(0), design.members(0))


def test_selections_are_uniform():
    n, k, models = 20, 5, 4000
    repeated = make_design("replacement", n=n, k=k, n_models=models, seed=1)
    times = np.bincount(np.concatenate([repeated.draws(model) for model in range(models)]), minlength=n)
    spread = 5 * np.sqrt(models * k / n)
    assert np.abs(times - models * k / n).max() < spread
    together = (repeated.membership[:, :10].any(axis=1) & repeated.membership[:, 10:].any(axis=1)).mean()
    assert abs(together - (1 - 2 * 0.5**k)) < 0.03
    kept = make_design("binomial", n=n, n_models=models, seed=1, p=Fraction(1, 4)).membership
    assert np.abs(kept.mean(axis=0) - 0.25).max() < 5 * np.sqrt(0.25 * 0.75 / models)
    assert abs(kept.sum(axis=1).var() - n * 0.25 * 0.75) < 0.4
    assert (kept.sum(axis=1) == 0).any()  # 0.3% of selections are empty, and that is legal


def test_votes_keep_the_probability(tmp_path):
    design = make_design("binomial", n=9, n_models=5, seed="kept by the operator", p=Fraction(1, 3))
    votes = Votes(np.zeros((5, 2), dtype=np.uint8), design.without_seed(), 2, facts={"unit": "training examples"})
    votes.save(tmp_path / "votes.npz")
    again = Votes.load(tmp_path / "votes.npz")
    assert again.design.p == Fraction(1, 3)
    assert again.design.fingerprint == design.fingerprint
    assert again.source == votes.source


@given(st.integers(2, 300), st.integers(0, 40), st.data())
def test_an_expected_size_need_not_be_whole(n, rho, data):
    k = data.draw(st.integers(1, n - 1))
    rho = min(rho, n)
    for poisoning in ("P1", "P2", "P3"):
        whole = delta("binomial", poisoning, n, k, rho)
        assert delta("binomial", poisoning, n, Fraction(k), rho) == whole
        between = delta("binomial", poisoning, n, k - Fraction(1, 2), rho)
        assert between <= whole  # smaller selections are harder to poison
        assert radius("binomial", poisoning, n, k - Fraction(1, 2), 0.3) >= radius("binomial", poisoning, n, k, 0.3)


def test_the_probability_does_not_follow_the_number_of_examples():
    # p = 1/100 before and after an attack that inserts: the observed certificate takes the observed n and the same p.
    counts = [[90, 10]]
    clean = certify_ideal(counts, n=1000, k=Fraction(10), alpha=0.01, scheme="binomial", poisoning="P2")
    told = {"alpha": 0.01, "scheme": "binomial", "poisoning": "P1", "perspective": "observed"}
    observed = certify_ideal(counts, n=1500, k=Fraction(15), **told)
    assert observed.radius[0] == clean.radius[0]
    assert "p=0.01" in observed.method


@pytest.mark.parametrize("scheme", SCHEMES)
def test_bad_sizes_are_named(scheme):
    with pytest.raises(ConfigError, match="k="):
        radius(scheme, "P3", 10, Fraction(21, 2), 0.5)
    with pytest.raises(ConfigError, match=r"p=|needs p"):
        make_design("binomial", n=10, n_models=3, seed=1, p=Fraction(3, 2))
    with pytest.raises(ConfigError, match="needs p"):
        make_design("binomial", n=10, k=3, n_models=3, seed=1)
