"""What every attack on the model owes its caller, whatever it does: checked for all of them at once."""

import inspect

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import holdfast.attacks as attacks
from holdfast.attacks import ATTACKS, WRAPPERS, Adversary, ModelAttack, as_adversary, make
from holdfast.types import ConfigError


def trimmed(rows):
    return np.sort(rows, axis=-2)[..., 2:-2, :].mean(axis=-2)


def middle(rows):
    return np.median(rows, axis=-2)


PLAIN = [name for name, kind in ATTACKS.items() if issubclass(kind, ModelAttack)]
PARTIAL = ["scaling", "model-replacement", "upa-mean", "upa-trimmed-mean", "upa-krum", "min-max", "disguise"]
CASES = (
    [make(name) for name in PLAIN]
    + [make(name, knowledge=level) for name in PARTIAL for level in ("own", "all")]
    + [
        make("gaussian-noise", space="update"),
        make("upa-trimmed-mean", space="update"),
        make("adaptive", aim="romoa", grid=4, refine=2),
        make("adaptive", aim="residual-reweighting", grid=4, refine=2, direction="own"),
        make("stealth", attack=make("upa-mean"), alpha=0.4),
        make("stealth", attack=make("upa-trimmed-mean"), alpha=(0.1, 0.9), around="reference"),
        make("blend", attack=make("sign-flip"), mix_rate=0.3),
        make("blend", attack=make("upa-krum", knowledge="own"), counterpart="own"),
        make("schedule", attack=make("min-sum"), rounds="from", at=1),
        make("collusion", attack=make("gaussian-noise")),
        make("boost", attack=make("mimic"), factor=3.0),
    ]
)
IDS = [repr(case) for case in CASES]


def a_round(seed=0, honest=6, f=3, d=11, lead=(), dtype=np.float64):
    rng = np.random.default_rng(seed)
    rows = rng.normal(0.2, 1.0, (*lead, honest + f, d)).astype(dtype)
    return rows[..., :honest, :].copy(), rows[..., honest:, :].copy(), rng.normal(size=(*lead, d)).astype(dtype)


def crafted(attack, honest, own, reference, *, rng=7, **more):
    generator = rng if isinstance(rng, np.random.Generator) else np.random.default_rng(rng)
    return attack(honest, own.shape[-2], own=own, reference=reference, rng=generator, rule=trimmed, round=2, **more)


@pytest.mark.parametrize("attack", CASES, ids=IDS)
class TestEveryAttack:
    def test_gives_f_rows_and_touches_nothing(self, attack):
        honest, own, reference = a_round()
        before = honest.copy(), own.copy(), reference.copy()
        malicious = crafted(attack, honest, own, reference)
        assert malicious.shape == own.shape
        assert malicious.dtype == honest.dtype
        assert np.isfinite(malicious).all()
        for now, then in zip((honest, own, reference), before, strict=True):
            np.testing.assert_array_equal(now, then)
        malicious += 1.0  # the caller may write into it
        np.testing.assert_array_equal(honest, before[0])
        np.testing.assert_array_equal(own, before[1])

    def test_same_generator_same_upload(self, attack):
        round_of = a_round()
        np.testing.assert_array_equal(crafted(attack, *round_of), crafted(attack, *round_of))

    def test_batch_is_a_loop(self, attack):
        honest, own, reference = a_round(lead=(2, 3))
        together = crafted(attack, honest, own, reference)
        generator = np.random.default_rng(7)
        for at in np.ndindex(2, 3):
            alone = crafted(attack, honest[at], own[at], reference[at], rng=generator)
            np.testing.assert_allclose(together[at], alone, rtol=1e-9, atol=1e-12)

    def test_kind_dtype_and_device_come_back(self, attack):
        honest, own, reference = a_round(dtype=np.float32)
        expected = crafted(attack, honest, own, reference)
        assert expected.dtype == np.float32
        tensors = [torch.from_numpy(part) for part in (honest, own, reference)]
        given_back = crafted(attack, *tensors)
        assert isinstance(given_back, torch.Tensor)
        assert given_back.dtype == torch.float32
        np.testing.assert_array_equal(given_back.numpy(), expected)
        half = crafted(attack, *[tensor.to(torch.bfloat16) for tensor in tensors])
        assert half.dtype == torch.bfloat16

    def test_sees_no_more_than_it_says(self, attack):
        honest, own, reference = a_round()
        other, another, _ = a_round(seed=99)
        if attack.knowledge in ("nothing", "own"):
            np.testing.assert_array_equal(
                crafted(attack, honest, own, reference), crafted(attack, other, own, reference)
            )
        if attack.knowledge == "nothing":
            np.testing.assert_array_equal(
                crafted(attack, honest, own, reference), crafted(attack, honest, another, reference)
            )
        if attack.knowledge != "rule":

            def forbidden(rows):
                raise AssertionError("the attack used a rule it does not know")

            attack(honest, 3, own=own, reference=reference, rng=np.random.default_rng(0), rule=forbidden)

    def test_no_attackers_no_rows(self, attack):
        honest, own, reference = a_round()
        assert crafted(attack, honest, own[:0], reference).shape == (0, 11)

    def test_one_attacker_and_one_parameter(self, attack):
        honest, own, reference = a_round(f=1, d=1, honest=5)
        assert np.isfinite(crafted(attack, honest, own, reference)).all()

    def test_identical_and_zero_rows_stay_finite(self, attack):
        for value in (0.0, 1.0):
            rows = np.full((9, 4), value)
            assert np.isfinite(crafted(attack, rows[:6], rows[6:], np.zeros(4))).all()

    def test_hyper_parameters_are_documented(self, attack):
        assert ">>>" in (inspect.getdoc(type(attack)) or "")


@given(st.integers(1, 5), st.integers(1, 3), st.integers(1, 6), st.integers(0, 10_000))
def test_any_shape(honest, f, d, seed):
    for attack in CASES:
        rows, own, reference = a_round(seed, honest, f, d)
        upload = attack(rows, f, own=own, reference=reference, rng=np.random.default_rng(seed), rule=middle)
        assert upload.shape == (f, d)


def test_without_own_rows_the_first_honest_ones_stand_in():
    honest, _, _ = a_round()
    np.testing.assert_array_equal(make("sign-flip")(honest, 2, rng=np.random.default_rng(0)), -honest[:2])


@pytest.mark.parametrize(
    ("name", "params", "said"),
    [
        ("upa-trimed-mean", {}, "did you mean 'upa-trimmed-mean'"),
        ("stelth", {}, "did you mean 'stealth'"),
        ("min-max", {"directon": "std"}, "did you mean 'direction'"),
        ("min-max", {"direction": "down"}, "direction='down'"),
        ("gaussian-noise", {"std": -1.0}, "std=-1.0"),
        ("gaussian-noise", {"knowledge": "all"}, "knowledge='all'"),
        ("upa-trimmed-mean", {"b": 1.0}, "b=1.0"),
        ("upa-krum", {"stop": 0.0}, "stop=0.0"),
        ("a-little-is-enough", {"population": "some"}, "population='some'"),
        ("model-replacement", {"server_lr": 0.0}, "server_lr=0.0"),
        ("adaptive", {"aim": "krum"}, "aim='krum'"),
        ("stealth", {"alpha": 1.5}, "alpha=1.5"),
        ("stealth", {"attack": "upa-mean"}, "attack='upa-mean'"),
        ("blend", {"mix_rate": -0.1}, "mix_rate=-0.1"),
        ("schedule", {"rounds": "never"}, "rounds='never'"),
        ("label-flip", {"pairs": ((1, 2), (1, 3))}, "every source label once"),
        ("all-label-flip", {"offset": 2}, "offset=2"),
        ("pixel-backdoor", {"per_batch": 65}, "per_batch=65"),
        ("feature-backdoor", {}, "columns"),
        ("targeted-samples", {"samples": np.zeros((0, 2))}, "samples is empty"),
    ],
)
def test_wrong_parameters_are_one_sentence(name, params, said):
    with pytest.raises(ConfigError) as refusal:
        make(name, **params)
    assert said in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_wrong_rounds_are_one_sentence():
    honest, own, _ = a_round()
    rng = np.random.default_rng(0)
    for wrong, said in (
        (lambda: make("mimic")(honest, -1, rng=rng), "f=-1"),
        (lambda: make("none")(honest, 2, own=own, rng=rng), "own has shape"),
        (lambda: make("none")(honest, 3, own=own, reference=np.zeros(4), rng=rng), "reference has shape"),
        (lambda: make("none")(honest[0], 3, rng=rng), "one row per client"),
        (lambda: make("adaptive")(honest, 3, own=own, rng=rng), "rule"),
        (lambda: make("none")(honest[:0], 2, rng=rng), "own is needed"),
        (lambda: make("mimic", client=9)(honest, 1, rng=rng), "client=9"),
    ):
        with pytest.raises(ConfigError, match=said):
            wrong()


def test_adversaries_of_the_paper_can_be_made():
    for name, build in attacks.ADVERSARIES.items():
        adversary = build()
        assert isinstance(adversary, Adversary), name
        assert as_adversary(adversary) is adversary
    once = attacks.ADVERSARIES["model-replacement"]()
    assert [r for r in range(20) if once.active(r)] == [6]
    assert as_adversary(make("upa-mean")).data is None
    with pytest.raises(ConfigError):
        as_adversary("upa-mean")
    assert set(WRAPPERS) == {"stealth", "blend", "boost", "schedule", "collusion"}
