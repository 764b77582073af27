"""The planner promises what the certificates then give, and says when nothing can be promised."""

import math

import numpy as np
import pytest

from holdfast.certification import certify_deployed, certify_ideal, certify_secret
from holdfast.ensemble import DESIGNS, make_design, plan
from holdfast.types import ConfigError


def by_certificate(*arguments: object, **options: object) -> dict[str, tuple[int, int | None, int]]:
    rows = plan(*arguments, **options)  # type: ignore[arg-type]
    return {row.certificate: (row.m, row.models_needed, row.pairs) for row in rows}


def test_known_ensemble() -> None:
    assert by_certificate("partitions", 1000, 10, 500, 0.001, 10_000, 10) == {
        "deployed": (49, 100, 5000),
        "secret": (60, 100, 5000),
    }
    assert by_certificate("disjoint", 1000, 10, None, 0.001)["deployed"] == (49, 100, 1000)
    assert by_certificate("random", 1000, 10, 500, 0.001, 10_000, 10)["ideal"][0] == 60
    assert by_certificate("exhaustive", 30, 2, None, 0.001)["ideal"] == (8, 435, 870)


def test_too_few_models_are_told_before_training() -> None:
    rows = plan("random", 1000, 10, 10, 0.001, 10_000, 10, method="as-published-ensemble")
    [row] = [row for row in rows if row.certificate == "ideal"]
    assert (row.m, row.models_needed) == (-1, 24)
    assert "can never certify anything; 24 models are needed" in str(row)
    assert math.ceil(math.log2(10_000 / 0.001)) == 24
    assert by_certificate("random", 1000, 10, 10, 0.001, 10_000, 10)["ideal"][1] == 28, "the rigorous method costs four"


@pytest.mark.parametrize("method", ["auto", "as-published-ensemble", "bonferroni"])
def test_models_needed_is_the_smallest_number_that_works(method: str) -> None:
    needed = by_certificate("random", 200, 5, 10, 0.01, 100, 4, method=method)["ideal"][1]
    assert needed is not None
    counts = [[needed, 0, 0, 0]] * 100
    assert certify_ideal(counts, n=200, k=5, alpha=0.01, method=method).radius.min() >= 1
    counts = [[needed - 1, 0, 0, 0]] * 100
    assert certify_ideal(counts, n=200, k=5, alpha=0.01, method=method).radius.max() < 1


@pytest.mark.parametrize(("kind", "models"), [("partitions", 24), ("disjoint", None), ("random", 30), ("spread", 15)])
def test_promise_is_reached_when_all_models_agree_and_never_exceeded(kind: str, models: int | None) -> None:
    found = (
        by_certificate(kind, 25, 3, models, 0.05, 20, 3) if kind != "spread" else by_certificate(kind, 30, 4, models)
    )
    n, k = (30, 4) if kind == "spread" else (25, 3)
    design = make_design(kind, n=n, k=k, n_models=models, seed=0)
    votes = np.full((design.n_models, 1), 2)
    assert certify_deployed(votes, design.membership, 3).radius[0] == found["deployed"][0]
    votes[0] = 0
    assert certify_deployed(votes, design.membership, 3).radius[0] <= found["deployed"][0]
    if "secret" in found:
        n_idle = n if kind == "random" else None
        again = certify_secret(votes * 0, design.group_sizes, design.repeats, 3, alpha=0.05, n=n_idle)
        assert again.radius[0] >= found["secret"][0], "label 0 wins ties, so it can only do better"


def test_all_designs_at_once_and_impossible_ones_left_out() -> None:
    assert {row.design for row in plan(None, 30, 2, 15)} == set(DESIGNS)
    assert {row.design for row in plan(None, 30, 2)} == {"partitions", "disjoint", "exhaustive"}
    assert {row.design for row in plan(None, 1000, 10, 500)} == {"partitions", "disjoint", "random", "spread"}


def test_hopeless_designs_say_so() -> None:
    rows = plan("disjoint", 10, 8)
    assert all(row.models_needed is None and row.m == 0 for row in rows)
    assert "nor can any number" in str(rows[0])
    assert by_certificate("random", 10, 8, 20, 0.01)["ideal"][1] is None


def test_bad_arguments_are_named() -> None:
    for arguments, name in (
        (("rings", 10, 2), "rings"),
        (("disjoint", 10, 11), "k=11"),
        (("disjoint", 10, 2, None, 2.0), "alpha"),
        (("disjoint", 10, 2, None, 0.1, 0), "n_inputs"),
        (("disjoint", 10, 2, None, 0.1, 1, 1), "n_labels"),
    ):
        with pytest.raises(ConfigError, match=name):
            plan(*arguments)  # type: ignore[arg-type]
