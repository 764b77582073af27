"""Designs: who trains what is balanced, reproducible from the seed, verifiable, and uniformly random."""

import hashlib
import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.ensemble import DESIGNS, Design, commit, make_design
from holdfast.types import ConfigError


@st.composite
def designs(draw: st.DrawFn) -> Design:
    kind = draw(st.sampled_from(sorted(DESIGNS)))
    n = draw(st.integers(1, 8 if kind == "exhaustive" else 40))
    k = draw(st.integers(1, n))
    models = None
    if kind == "partitions":
        models = draw(st.integers(1, 4)) * (n // k)
    elif kind == "random":
        models = draw(st.integers(1, 20))
    elif kind == "spread":
        step = n // math.gcd(n, k)
        models = step * draw(st.integers(1, n // step))
    seed = draw(st.one_of(st.binary(min_size=1, max_size=40), st.integers(0, 10**9), st.text(min_size=1)))
    return make_design(kind, n=n, k=k, n_models=models, seed=seed)


@given(designs())
def test_groups_are_as_the_kind_promises(design: Design) -> None:
    sizes = design.membership.sum(axis=1)
    if design.kind in ("partitions", "disjoint"):
        groups = len(design.group_sizes)
        assert groups == design.n // design.k
        assert max(design.group_sizes) - min(design.group_sizes) <= 1
        for start in range(0, design.n_models, groups):
            part = design.membership[start : start + groups]
            assert (part.sum(axis=0) == 1).all()
            assert tuple(part.sum(axis=1)) == design.group_sizes
        assert design.repeats * groups == design.n_models
        assert (design.models_per_client == design.repeats).all()
    elif design.kind == "spread":
        assert (design.models_per_client == design.n_models * design.k // design.n).all()
        assert sizes.sum() == design.n_models * design.k
        assert sizes.min() >= 1
    else:
        assert (sizes == design.k).all()
    if design.kind == "exhaustive":
        assert design.n_models == math.comb(design.n, design.k) == len(np.unique(design.membership, axis=0))
    assert [design.members(j).tolist() for j in range(design.n_models)] == [
        np.flatnonzero(row).tolist() for row in design.membership
    ]


@given(designs())
def test_seed_gives_the_design_back_and_only_that_seed(design: Design) -> None:
    assert design.seed is not None
    assert design.commitment == hashlib.sha256(design.seed).hexdigest() == commit(design.seed)
    assert design.verify(design.seed)
    assert not design.verify(design.seed + b"?")
    assert design.without_seed().seed is None
    assert design.without_seed().fingerprint == design.fingerprint
    if len(design.seed) >= 6:  # shorter ones may turn up by chance
        assert design.seed.hex() not in repr(design)
        assert repr(design.seed)[2:-1] not in repr(design)


def test_changed_membership_is_noticed() -> None:
    design = make_design("disjoint", n=12, k=3, seed=b"secret")
    moved = design.membership.copy()
    moved[:, [0, 1]] = moved[:, [1, 0]]
    other = Design("disjoint", moved, 3, design.group_sizes, 1, design.commitment, False)
    if not np.array_equal(moved, design.membership):
        assert not other.verify(b"secret")
        assert other.fingerprint != design.fingerprint


def test_first_partitions_are_a_design_of_their_own() -> None:
    design = make_design("partitions", n=25, k=4, n_models=18, seed=b"0123456789abcdef")
    one = design.prefix(1)
    assert (one.kind, one.n_models, one.repeats) == ("disjoint", 6, 1)
    assert np.array_equal(one.membership, design.membership[:6])
    assert one.verify(b"0123456789abcdef")
    two = design.prefix(2)
    assert (two.kind, two.n_models) == ("partitions", 12)
    assert two.verify(b"0123456789abcdef")
    random = make_design("random", n=9, k=2, n_models=7, seed=1).prefix(3)
    assert (random.n_models, random.verify(1)) == (3, True)
    for repeats in (0, 4):
        with pytest.raises(ConfigError, match="repeats"):
            design.prefix(repeats)
    with pytest.raises(ConfigError, match="exhaustive"):
        make_design("exhaustive", n=5, k=2, seed=1).prefix(1)


def test_no_models_bits_depend_on_how_many_models_there_are() -> None:
    for kind, few, many in (("random", 3, 11), ("partitions", 5, 20)):
        short = make_design(kind, n=20, k=4, n_models=few, seed=9)
        long = make_design(kind, n=20, k=4, n_models=many, seed=9)
        assert np.array_equal(long.membership[:few], short.membership)


def test_seeds_drawn_here_are_long_secret_and_never_repeat() -> None:
    one, other = (make_design("disjoint", n=50, k=5) for _ in range(2))
    assert one.secret
    assert one.seed is not None
    assert len(one.seed) == 32
    assert one.commitment != other.commitment
    assert not np.array_equal(one.membership, other.membership)
    assert not make_design("disjoint", n=50, k=5, seed=2**200).secret
    assert not make_design("disjoint", n=50, k=5, seed=b"short").secret
    assert make_design("disjoint", n=50, k=5, seed="sixteen letters!").secret


def test_assignment_is_uniform() -> None:
    # All 15 ways to split 6 clients into 3 pairs, all 10 pairs of 5: chi-square far from its 1e-6 quantile.
    pairs = {frozenset(map(frozenset, np.split(np.array(p), 3))) for p in itertools.permutations(range(6))}
    seen = dict.fromkeys(pairs, 0)
    design = make_design("partitions", n=6, k=2, n_models=3 * 3000, seed=4)
    for start in range(0, design.n_models, 3):
        seen[frozenset(frozenset(design.members(j).tolist()) for j in range(start, start + 3))] += 1
    assert len(seen) == 15
    assert sum((count - 200) ** 2 / 200 for count in seen.values()) < 60
    random = make_design("random", n=5, k=2, n_models=3000, seed=4)
    counts = np.unique(random.membership, axis=0, return_counts=True)[1]
    assert len(counts) == 10
    assert ((counts - 300) ** 2 / 300).sum() < 50


def test_golden_assignment_never_changes() -> None:
    # Designs must be redrawn from revealed seeds years later: these values are part of the format.
    assert make_design("disjoint", n=8, k=2, seed=b"format 1").fingerprint == GOLDEN["disjoint"]
    assert make_design("random", n=8, k=3, n_models=5, seed=b"format 1").fingerprint == GOLDEN["random"]
    assert make_design("spread", n=8, k=2, n_models=4, seed=b"format 1").fingerprint == GOLDEN["spread"]


GOLDEN = {
    "disjoint": "764b1ac8eac06fd73b111ca36fe9a5ee414983899bd017f4f5fc9675a7f3e3a7",
    "random": "670d21b0cf8d520781ef51e52f6c60162e0a9f1aad9b26aefa117cf2ac0c1f14",
    "spread": "3ce4ff9a22ef3c2edee04527748d6af5784b1304d2d475e22bbea74c9e6e7281",
}


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"kind": "rings"}, "rings"),
        ({"n": 0}, "n=0"),
        ({"n": 10.0}, "n=10.0"),
        ({"k": 0}, "k=0"),
        ({"k": 11}, "k=11"),
        ({"n_models": 0}, "n_models=0"),
        ({"n_models": 7}, "multiple of the 5"),
        ({"kind": "disjoint", "n_models": 7}, "has 5 models"),
        ({"kind": "random"}, "n_models is needed"),
        ({"kind": "spread"}, "n_models is needed"),
        ({"kind": "spread", "n_models": 7}, "choose a multiple of 5"),
        ({"kind": "spread", "n_models": 15}, "at most n"),
        ({"kind": "exhaustive", "n_models": 44}, "has 45 models"),
        ({"kind": "exhaustive", "n": 100, "k": 50}, "at most"),
        ({"seed": 1.5}, "seed"),
        ({"seed": True}, "seed"),
    ],
)
def test_bad_arguments_are_named(options: dict[str, object], name: str) -> None:
    arguments: dict[str, object] = {"kind": "partitions", "n": 10, "k": 2, "seed": 1} | options
    with pytest.raises(ConfigError, match=name):
        make_design(**arguments)  # type: ignore[arg-type]
