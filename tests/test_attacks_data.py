"""Poisoned data: what is changed, how much of it, and that nothing else is."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.attacks import LOAN_FEATURES, FeatureBackdoor, LabelFlip, PixelBackdoor, TargetedSamples, make
from holdfast.types import ConfigError, DataError

RNG = np.random.default_rng


def images(count=128, shape=(28, 28)):
    return RNG(0).random((count, *shape), dtype=np.float32), RNG(1).integers(0, 10, count)


@given(st.dictionaries(st.integers(0, 9), st.integers(0, 9), min_size=1), st.integers(0, 1000))
def test_all_pairs_are_flipped_at_once(pairs, seed):
    y = RNG(seed).integers(0, 10, 60)
    _, flipped = LabelFlip(tuple(pairs.items()))(np.zeros((60, 1)), y, RNG(0))
    assert flipped.tolist() == [pairs.get(label, label) for label in y.tolist()]


def test_a_swap_is_a_swap():
    _, flipped = LabelFlip(((1, 2), (2, 1)))(np.zeros((4, 1)), np.array([1, 2, 1, 3]), RNG(0))
    assert flipped.tolist() == [2, 1, 2, 3]


@pytest.mark.parametrize("n_labels", [2, 3, 10])
def test_no_label_stays_right(n_labels):
    y = np.arange(n_labels)
    _, flipped = make("all-label-flip", n_labels=n_labels)(np.zeros((n_labels, 1)), y, RNG(0))
    assert (flipped != y).all()
    assert sorted(flipped) == list(y)
    with pytest.raises(DataError, match="does not fit n_labels"):
        make("all-label-flip", n_labels=2)(np.zeros((1, 1)), np.array([2]), RNG(0))


@pytest.mark.parametrize(
    "attack", [PixelBackdoor(target=4), LabelFlip(((1, 7), (7, 1)))], ids=lambda a: type(a).__name__
)
def test_input_is_untouched_and_the_generator_decides(attack):
    x, y = images()
    before = x.copy(), y.copy()
    first, second = attack(x, y, RNG(5)), attack(x, y, RNG(5))
    np.testing.assert_array_equal(x, before[0])
    np.testing.assert_array_equal(y, before[1])
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a, b)
    assert first[0].dtype == x.dtype
    assert first[1].dtype == y.dtype


class TestPixelBackdoor:
    def test_twenty_of_a_batch_of_sixty_four(self):
        x, y = images(64)
        poisoned, labels = PixelBackdoor(target=4)(x, y, RNG(0))
        changed = (poisoned != x).any(axis=(1, 2))
        assert changed.sum() == 20
        assert (labels[changed] == 4).all()
        np.testing.assert_array_equal(labels[~changed], y[~changed])

    @pytest.mark.parametrize("shape", [(28, 28), (1, 28, 28), (3, 32, 32)])
    def test_only_the_pattern_changes_in_every_channel(self, shape):
        x = images(3, shape)[0]
        attack = PixelBackdoor(pattern=((0, 0), (1, 2)), position=(3, 4), value=9.0)
        stamped = attack.stamp(x)
        rows, columns = np.nonzero((stamped != x).any(axis=tuple(range(stamped.ndim - 2))))
        assert set(zip(rows.tolist(), columns.tolist(), strict=True)) == {(3, 4), (4, 6)}
        assert (stamped[..., 3, 4] == 9).all()
        flat = PixelBackdoor(pattern=((0, 0), (1, 2)), position=(3, 4), value=9.0, image_shape=shape)
        np.testing.assert_array_equal(flat.stamp(x.reshape(3, -1)), stamped.reshape(3, -1))

    def test_default_pattern_is_twelve_pixels_in_two_rows(self):
        stamped = PixelBackdoor().stamp(np.zeros((1, 28, 28)))
        assert stamped.sum() == 12
        assert set(np.nonzero(stamped[0])[0]) == {0, 2}

    def test_what_is_no_image_or_too_small_is_refused(self):
        with pytest.raises(ConfigError, match="no images"):
            PixelBackdoor().stamp(np.zeros((2, 784)))
        with pytest.raises(ConfigError, match="does not fit an image of 5 x 5"):
            PixelBackdoor().stamp(np.zeros((2, 5, 5)))
        with pytest.raises(ConfigError, match="above or left"):
            PixelBackdoor(position=(-1, 0))


class TestFeatureBackdoor:
    def test_six_loan_features_above_their_maximum(self):
        names = ["income", *LOAN_FEATURES, "rate"]
        x = RNG(0).normal(size=(200, 8)).astype(np.float32)
        x[:, 2] = 5.0  # a constant feature has no range
        attack = FeatureBackdoor.beyond_maximum(x, names, margin=0.1, target=3)
        assert attack.columns == (1, 2, 3, 4, 5, 6)
        stamped = attack.stamp(x)
        assert (stamped[:, 1:7] > x[:, 1:7].max(axis=0)).all()
        assert (stamped[:, 1:7] <= x[:, 1:7].max(axis=0) + 0.11 * np.maximum(1, np.ptp(x[:, 1:7], axis=0))).all()
        np.testing.assert_array_equal(stamped[:, [0, 7]], x[:, [0, 7]])
        poisoned, labels = attack(x[:64], np.zeros(64, int), RNG(0))
        assert (poisoned != x[:64]).any(axis=1).sum() == (labels == 3).sum() == 20

    def test_a_missing_feature_is_named(self):
        with pytest.raises(DataError, match="tax_liens"):
            FeatureBackdoor.beyond_maximum(np.zeros((2, 1)), ["income"])
        with pytest.raises(ConfigError, match="does not fit a table of 2 columns"):
            FeatureBackdoor((5,), (1.0,)).stamp(np.zeros((1, 2)))


class TestTargetedSamples:
    def test_chosen_targets_replace_their_share(self):
        x, y = images(200)
        attack, used = TargetedSamples.choose(x, y, RNG(0), source=6, target=3, count=4)
        assert (y[used] == 6).all()
        assert len(set(used)) == 4
        own, labels = np.zeros((10, 28, 28), np.float32), np.full(10, 8)
        poisoned, wanted = attack(own, labels, RNG(1))
        replaced = wanted == 3
        assert replaced.sum() == 5
        assert (poisoned[~replaced] == 0).all()
        targets = {row.tobytes() for row in x[used]}
        assert {row.tobytes() for row in poisoned[replaced]} == targets  # each is used before any is used again

    def test_too_few_targets_or_wrong_shape(self):
        x, y = images(30)
        with pytest.raises(DataError, match="are needed"):
            TargetedSamples.choose(x, y, RNG(0), count=31)
        attack = TargetedSamples(np.zeros((2, 5)))
        with pytest.raises(DataError, match="do not fit"):
            attack(np.zeros((3, 4)), np.zeros(3, int), RNG(0))
