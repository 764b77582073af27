"""The options of residual reweighting, shared by the rule and its two implementations."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Options:
    """The published hyper-parameters and every point where the sources differ; see `ResidualReweighting`."""

    lam: float = 2.0
    delta: float = 0.1
    gamma: float = 1.4826
    line: str = "repeated-median"
    weighting: str = "huber"
    intercept: str = "midrank"
    ties: str = "average"
    rank_base: int = 0
    leverage: str = "two-column"
    drop_smallest: int = 1
    keep_equal: bool = True
    zero_rejected: bool = False
    std_before: bool = True
    power: float = 2.0
    floor_abs: float = 0.0
    floor_rel: float = 0.0


def rounding(n: int, eps: float) -> float:
    """Residuals below this multiple of the slope are rounding errors: values on the line keep full confidence."""
    return 4 * n * eps
