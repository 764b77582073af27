"""The result type: what a certificate says, how it counts, and what it refuses to be."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.certification import ABSTAIN, KINDS, Certificate, certify_collective, certify_deployed
from holdfast.types import ConfigError


def make(prediction: object, radius: object, kind: str = "deployed") -> Certificate:
    return Certificate(kind, np.array(prediction), np.array(radius), 0.0, "by hand", ("an assumption",))


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(-1, 6), st.integers(-1, 3)), min_size=1, max_size=30))
def test_curve_is_certified_accuracy_counted_by_hand(rows: list[tuple[int, int, int]]) -> None:
    rows = [(ABSTAIN if radius < 0 else label, radius, truth) for label, radius, truth in rows]
    prediction, radius, truth = (np.array(column) for column in zip(*rows, strict=True))
    certificate = make(prediction, radius)
    known = [row for row in rows if row[2] >= 0]
    if not known:
        with pytest.raises(ConfigError, match="unknown"):
            certificate.curve(truth)
        return
    curve = certificate.curve(truth)
    for m, share in enumerate(curve):
        assert share == certificate.certified_accuracy(truth, m) == np.mean([p == t and r >= m for p, r, t in known])
    assert curve[-1] == 0
    assert (np.diff(curve) <= 0).all()
    assert certificate.certified_rate(0) == np.mean(radius >= 0)


def test_printing_tells_kind_failure_probability_and_every_assumption() -> None:
    for kind, meaning in KINDS.items():
        text = str(make([1, -1], [3, -1], kind))
        assert kind in text
        assert meaning in text
        assert "an assumption" in text
        assert "1 of 2" in text
    assert "0 of 1" in str(make([-1], [-1]))


def test_values_cannot_be_changed() -> None:
    certificate = make([1], [2])
    with pytest.raises(dataclasses.FrozenInstanceError):
        certificate.alpha = 0.5  # type: ignore[misc]
    with pytest.raises(ValueError, match="read-only"):
        certificate.radius[0] = 100


def test_bad_results_and_questions_are_refused() -> None:
    with pytest.raises(ConfigError, match="kind"):
        make([1], [2], "guess")
    with pytest.raises(ConfigError, match=r"\[T\]"):
        make([1, 2], [2])
    certificate = make([1, 2], [2, 0])
    for labels in ([1], [1.0, 2.0], [[1, 2]]):
        with pytest.raises(ConfigError, match="labels"):
            certificate.certified_accuracy(labels, 0)
    for m in (-1, 1.5, True):
        with pytest.raises(ConfigError, match="m="):
            certificate.certified_rate(m)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"votes": [[0.5]]}, "float"),
        ({"votes": [[3]]}, "must lie in 0"),
        ({"votes": [0]}, "shape"),
        ({"votes": np.empty((0, 1), dtype=int)}, "shape"),
        ({"membership": [[True], [True]]}, "membership"),
        ({"membership": [True]}, "membership"),
        ({"membership": [[2]]}, "membership"),
        ({"membership": np.empty((1, 0), dtype=bool)}, "membership"),
        ({"n_labels": 1}, "n_labels"),
        ({"n_labels": 2.0}, "n_labels"),
        ({"bound": "best"}, "bound"),
    ],
)
def test_bad_arguments_of_deployed_are_named(options: dict[str, object], name: str) -> None:
    arguments = {"votes": [[0]], "membership": [[True]], "n_labels": 3} | options
    with pytest.raises(ConfigError, match=name):
        certify_deployed(**arguments)  # type: ignore[arg-type]


def test_deployed_edges() -> None:
    assert certify_deployed(np.empty((2, 0), dtype=int), np.eye(2, dtype=int), 2).n_inputs == 0
    nobody = certify_deployed([[1], [1]], [[False], [False]], 2)
    assert nobody.radius.tolist() == [1], "models without clients cannot be reached, whoever is malicious"
    one = certify_deployed([[1]], [[True, True]], 2, bound="exact")
    assert (one.prediction[0], one.radius[0]) == (1, 0)
    wide = certify_deployed(np.ones((300, 1), dtype=int), np.eye(300, dtype=bool), 300, bound="lp")
    assert wide.radius[0] == 149


def test_bad_arguments_of_collective_are_named() -> None:
    votes, members = [[0, 1], [0, 1]], np.eye(2, dtype=bool)
    for options, name in (({"m": 3}, "m=3"), ({"chunk": 0}, "chunk"), ({"labels": [1]}, "labels")):
        with pytest.raises(ConfigError, match=name):
            certify_collective(votes, members, 2, **({"m": 1} | options))  # type: ignore[arg-type]


def test_collective_counts_only_what_is_right_now() -> None:
    votes, members = [[0, 1, 1], [0, 1, 0]], np.eye(2, dtype=bool)
    bound = certify_collective(votes, members, 2, 1, labels=[0, 0, 0])
    assert bound.n_inputs == 2
    assert bound.certified_share == 1 - bound.changed / 2
    assert certify_collective(votes, members, 2, 1, labels=[5, 5, 5]).certified_share == 0.0
