"""Base classifiers on selections: balanced by their own labels, each a function of its own selection, never NaN."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from holdfast.training import FedAvg, make_trainer, model_factory
from holdfast.training.selection import balanced_rows, expanded_size, selection_rows, sgd
from holdfast.types import ConfigError

labelings = st.lists(st.integers(0, 4), min_size=1, max_size=30).map(np.array)


@given(labelings, st.integers(1, 200), st.integers(0, 2**64 - 1), st.data())
def test_classes_and_examples_weigh_the_same(y, size, seed, data):
    rows = data.draw(st.lists(st.integers(0, len(y) - 1), min_size=1, max_size=40))
    found = balanced_rows(rows, y, size=size, seed=seed)
    assert len(found) == size
    assert set(found) <= set(rows)
    per_class = [int((y[found] == label).sum()) for label in np.unique(y[rows])]
    assert max(per_class) - min(per_class) <= 1
    for label in np.unique(y[rows]):
        places = np.array([row for row in rows if y[row] == label])
        per_row = np.bincount(found[y[found] == label], minlength=len(y))
        for row in np.unique(places):  # an example drawn twice weighs twice
            share = int((places == row).sum())
            low = int((y[found] == label).sum()) // len(places)
            assert share * low <= per_row[row] <= share * (low + 1)
    np.testing.assert_array_equal(found, balanced_rows(rows[::-1], y, size=size, seed=seed))


@given(labelings, st.integers(1, 50), st.data())
def test_no_example_is_lost_unless_it_could_not_be_drawn(y, least, data):
    rows = data.draw(st.lists(st.integers(0, len(y) - 1), min_size=1, max_size=40))
    size = expanded_size(rows, y, least=least, draws=10_000)
    assert size >= least
    assert set(balanced_rows(rows, y, size=size, seed=3)) == set(rows)
    assert expanded_size(rows, y, least=least, draws=7) <= 7


@given(labelings, st.data())
def test_a_selection_does_not_feel_the_others(y, data):
    some = st.lists(st.integers(0, len(y) - 1), max_size=12)
    selections = data.draw(st.lists(some, min_size=1, max_size=5))
    trusted = data.draw(some)
    parts = selection_rows(selections, y, trusted=trusted, least=16, seed=5)
    assert parts.n == len(selections)
    changed = [*selections[:-1], data.draw(some)]
    other = selection_rows(changed, y, trusted=trusted, least=16, seed=5)
    for number in range(len(selections) - 1):
        np.testing.assert_array_equal(parts.rows(number), other.rows(number))
    for number, selection in enumerate(selections):
        assert set(parts.rows(number)) == set(selection) | set(trusted)


@given(st.integers(1, 400))
def test_steps_are_kept_exactly(steps):
    settings = sgd(steps=steps, batch_size=4, lr=0.1)
    assert settings.steps == steps
    assert settings.local_steps <= 10


def test_bad_numbers_are_named():
    with pytest.raises(ConfigError, match="steps must be a whole number"):
        sgd(steps=0, batch_size=4, lr=0.1)
    with pytest.raises(ConfigError, match="size=0"):
        balanced_rows([0], np.array([0]), size=0, seed=1)


SELECTIONS = [[0, 1, 2, 3, 4, 5], [], [7], [0, 2, 4, 4, 4], [1, 3, 5, 6]]  # mixed, empty, one example, one class, odd


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(0)
    y = np.arange(8) % 2
    x = rng.random((8, 1, 12, 12), dtype=np.float32) + 2 * y[:, None, None, None].astype(np.float32)
    return x, y


def normalized():
    """Batch normalization, whose variance is zero on a selection of one example."""
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU(), nn.Flatten(), nn.Linear(200, 2))


@pytest.mark.parametrize(
    ("model", "engine"), [("lenet", "compiled"), ("logistic", "torch"), (f"{__name__}:normalized", "torch")]
)
def test_empty_and_one_class_selections_train_and_vote(images, model, engine):
    x, y = images
    rows = selection_rows(SELECTIONS, y, least=32, seed=1)
    members = [np.array([number]) for number in range(len(SELECTIONS))]
    factory = model_factory(model, x.shape[1:], 2)
    trainer = make_trainer(factory, x, y, rows, FedAvg(rounds=3, lr=0.1, batch_size=8), seed=2, engine=engine)
    start = trainer.init(range(len(members)))
    trained = trainer.run(start, range(len(members)), members)
    assert np.isfinite(trained).all()
    np.testing.assert_array_equal(trained[1], start[1])  # nothing selected: the model stays as it began
    votes = trainer.predict(trained, x)
    assert votes.shape == (5, 8)
    if model == "logistic":
        assert (votes[2] == 1).all()
        assert (votes[3] == 0).all()


def test_a_model_sees_its_selection_and_the_trusted_rows_only(images):
    x, y = images
    rows = selection_rows([[0, 1, 2, 3], [4, 5, 0]], y, trusted=[7], least=16, seed=1)
    factory = model_factory("lenet", x.shape[1:], 2)

    def train(x, y):
        # The rows were settled from the clean labels; only the examples themselves change.
        trainer = make_trainer(factory, x, y, rows, FedAvg(rounds=2, lr=0.1, batch_size=8), seed=2)
        return trainer.run(trainer.init([0, 1]), [0, 1], [np.array([0]), np.array([1])])

    clean = train(x, y)
    poisoned_x, poisoned_y = x.copy(), y.copy()
    poisoned_x[[4, 5]] = -9
    poisoned_y[[4, 5]] = 1 - y[[4, 5]]
    attacked = train(poisoned_x, poisoned_y)
    np.testing.assert_array_equal(attacked[0], clean[0])
    assert not np.array_equal(attacked[1], clean[1])
    trusted_x = x.copy()
    trusted_x[7] = 5
    assert not np.array_equal(train(trusted_x, y)[0], clean[0])
