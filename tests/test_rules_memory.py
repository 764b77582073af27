"""Peak memory: at most twice the updates, the updates themselves included, for every rule without a history."""

import tracemalloc
from typing import Any

import numpy as np
import pytest

from tests.rules_under_test import ident, involves, rules

ROWS = np.random.default_rng(0).normal(size=(20, 400_000)).astype(np.float32)

WITH_HISTORY = ("FoolsGold", "Romoa")


def peak(rule: Any, rows: Any) -> int:
    """Bytes allocated at the peak of one aggregation with its verdict, the input not included."""
    rule.aggregate(rows)  # compiled kernels, pools and caches are there once
    tracemalloc.start()
    rule.aggregate(rows)
    used = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return used


@pytest.mark.parametrize("rule", rules(2), ids=ident)
def test_peak_memory(rule: Any) -> None:
    if involves(rule, WITH_HISTORY):
        pytest.skip("keeps a history")
    assert peak(rule, ROWS) < ROWS.nbytes
    damaged = ROWS.copy()
    damaged[3, 7] = np.nan
    assert peak(rule, damaged) < ROWS.nbytes


@pytest.mark.parametrize("rule", rules(2), ids=ident)
def test_half_precision_and_lists_are_not_copied_whole(rule: Any) -> None:
    if involves(rule, WITH_HISTORY):
        pytest.skip("keeps a history")
    assert peak(rule, list(ROWS)) < 0.75 * ROWS.nbytes
    half = ROWS.astype(np.float16)
    assert peak(rule, half) < 1.2 * half.nbytes
