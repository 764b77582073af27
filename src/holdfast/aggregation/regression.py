"""Rules that fit a robust line through each coordinate's sorted values: how far a value lies from it is the verdict."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np

from holdfast.aggregation.calling import Rule
from holdfast.aggregation.kernels import irls
from holdfast.aggregation.kernels.options import Options
from holdfast.aggregation.parameters import check_choice, check_count, check_flag, check_number
from holdfast.aggregation.plans import Given, Plan
from holdfast.aggregation.stacking import Block, Rows
from holdfast.types import ConfigError

INTERCEPTS = ("midrank", "direct", "hierarchical")
KEEP_BYTES = 1 << 30
"""The first pass leaves some 8 + n/8 bytes per coordinate for the second; beyond this, lines are fitted again."""

PRESETS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "paper": {
            "gamma": 1.48,
            "ties": "stable",
            "rank_base": 1,
            "intercept": "direct",
            "drop_smallest": 0,
            "leverage": "one-column",
            "keep_equal": False,
            "zero_rejected": True,
            "std_before": False,
            "power": 1.0,
        },
        "official": {"ties": "stable", "floor_abs": 1e-7},
    }
)
"""How the two published forms of residual reweighting differ from the default: the printed text, the authors' code."""


@dataclass(frozen=True)
class RepeatedMedian(Rule):
    r"""The height, at the middle rank, of the repeated-median line through every coordinate's sorted values.

    Formula: with $y_{(0)} \le \dots \le y_{(n-1)}$ one coordinate's values, the slope is
    $b_1 = \operatorname{med}_i \operatorname{med}_{j \ne i} (y_{(j)} - y_{(i)}) / (j - i)$ and the value
    $b_0 + b_1 (n-1)/2$, where the intercept is `hierarchical`: $b_0 = \operatorname{med}_i (y_{(i)} - b_1 i)$;
    `direct`, as printed in the paper, with ranks x that start at 1:
    $b_0 = \operatorname{med}_i \operatorname{med}_{j \ne i} (x_j y_{(i)} - x_i y_{(j)}) / (x_j - x_i)$;
    or `midrank`: $b_0 = \operatorname{med}(y) - b_1 (n-1)/2$, which makes the value the plain median.

    Shapes: `[..., n, d]` to `[..., d]`.

    Tolerates: fewer than half of the values gross outliers (with `direct` in the letter of the formula, but see below).

    Fails: `direct` depends on where ranks start and is a poor center: digits under Gaussian noise from 4 of 10
    clients reach an accuracy of 0.805 with it and 0.940 with `hierarchical`. The paper's tables do not say which
    form they used.

    Cost: one pass; n medians of n - 1 slopes per coordinate, O(n^2) and more; O(d) memory.

    Args:
        intercept: `hierarchical`, `direct` or `midrank`.

    Raises:
        ConfigError: an unknown intercept.

    Example:
        >>> RepeatedMedian()([[1.0, 5.0], [2.0, 4.0], [3.0, 6.0], [1e9, -1e9]])
        array([2.5, 4.5])

    Paper: Fu et al., "Attack-Resistant Federated Learning with Residual-based Reweighting", 2019 (arXiv 1912.11464),
    (1) and (2), its baseline; Siegel, "Robust regression using repeated medians", Biometrika 1982.
    """

    coordinate_wise = True
    intercept: str = "hierarchical"

    def __post_init__(self) -> None:
        check_choice(self, "intercept", INTERCEPTS)

    def min_clients(self) -> int:
        """One; one or two rows give their mean."""
        return 1

    def plan(self, rows: Rows, given: Given) -> Plan:
        """Fit the lines."""
        options = Options(intercept=self.intercept, rank_base=1)
        return Plan(lambda _, block: irls.line_block(block, options))


@dataclass(frozen=True)
class TheilSen(Rule):
    r"""The height, at the middle rank, of the Theil-Sen line through every coordinate's sorted values.

    Formula: with $y_{(0)} \le \dots \le y_{(n-1)}$, the slope is
    $b_1 = \operatorname{med}_{i<j} (y_{(j)} - y_{(i)}) / (j - i)$ and the value
    $\operatorname{med}_i (y_{(i)} - b_1 i) + b_1 (n-1)/2$ (the joint intercept).

    Shapes: `[..., n, d]` to `[..., d]`.

    Tolerates: gross outliers in fewer than 29.3% of the values, for large n: each outlier spoils all its pairs.

    Fails: beyond that. Under Gaussian noise from 4 of 10 clients digits reach an accuracy of 0.783, and 0.942 with
    the repeated median; it is here because the paper compares with it.

    Cost: one pass; a median of n (n - 1) / 2 slopes per coordinate; compiled for up to 23 clients, slower beyond.

    Example:
        >>> TheilSen()([[1.0], [2.0], [3.0], [4.0], [1e9]])
        array([3.])

    Paper: Fu et al., "Attack-Resistant Federated Learning with Residual-based Reweighting", 2019 (arXiv 1912.11464),
    appendix A.4; Sen, "Estimates of the regression coefficient based on Kendall's tau", JASA 1968.
    """

    coordinate_wise = True

    def min_clients(self) -> int:
        """One; one or two rows give their mean."""
        return 1

    def plan(self, rows: Rows, given: Given) -> Plan:
        """Fit the lines."""
        options = Options(line="theil-sen", intercept="hierarchical")
        return Plan(lambda _, block: irls.line_block(block, options))


@dataclass(frozen=True)
class ResidualReweighting(Options, Rule):
    r"""Weigh whole clients by how close their values lie to a robust line through each coordinate's sorted values.

    Formula, per coordinate, with x the ranks of the values y:

    - line $b_0 + b_1 x$ by repeated medians, (1) and (2); residual $r_k = y_k - b_0 - b_1 x_k$;
    - scale $\tau = \gamma \, (1 + 5/(n-1)) \operatorname{med} |r|$, (3) and (4), and never below rounding errors;
    - confidence $w_k = \min(1, \lambda \sqrt{2/n} \sqrt{1 - h_k} \, \tau / |r_k|)$, with h the leverage of rank x, (5)
      to (7); Gaussian instead: $w_k = \exp(-r_k^2 / (2 \lambda^2 \tau^2))$;
    - a value with $w_k < \delta$ is replaced by the line's, (8) and (9): $\hat y_k$;
    - client weight $W_k = \sum w_k \, \sigma(w)$ over all coordinates, (10): coordinates on which confidence differs
      count most.

    The result is $\sum_k p_k \hat y_k$ with $p_k \propto (W_k / \max W)^2$; the square is in the authors' code, not in
    the paper, and is what makes the rule work: 4 malicious of 10 clients sending Gaussian noise keep 3.4% of the
    influence with it and 12.6% without. If all clients agree everywhere, they share equally.

    Shapes: `[..., n, d]` to `[..., d]`; one weight per client for the whole vector. `client_weights` are p;
    diagnostics: `rejected`, the share of each client's coordinates replaced by the line; `weights`, W.

    Tolerates: in each coordinate up to floor(n/2) - 1 gross outliers (4 of 10); needs no f. Partial changes (10% of a
    client's parameters set to extreme values) are found and cost the client its weight everywhere.

    Fails: with n <= 3 it is the mean (every residual pattern of three values looks alike). Four of ten clients who
    flip the sign of their update and triple it defeat it, and every variant of it. Label flips are damped, not
    removed. It takes what is rare for an attack: clients who alone hold a class, or alone trained an embedding row,
    lose weight or have the value replaced; where more than half agree exactly the scale is zero and every deviation
    is rejected (`floor_rel`, `floor_abs` soften this). With n = 100 about 10% of honest Gaussian values fall below
    delta = 0.1: lower delta for many clients. Sample counts are not used.

    Cost: two passes; n medians of n - 1 slopes per coordinate, O(n^2 log^2 n) minima and maxima (docs/speed.md has the
    times); about 8 + n/8 bytes per coordinate beside the input.

    Args:
        lam: width of the interval of full confidence (lambda; with Gaussian weighting its standard deviation).
        delta: confidence below which a value is replaced by the line.
        gamma: makes the median absolute residual comparable to a standard deviation.
        line: `repeated-median`, `theil-sen` (29.3% breakdown) or `median` (a flat line), appendix A.4.
        weighting: `huber` (as above) or `gaussian`, which has no leverage, appendix A.4.
        intercept: `midrank` (through the median at the middle rank), `direct` (as printed) or `hierarchical`.
        ties: equal values share the mean of their ranks (`average`) or rank in the clients' order (`stable`, which
            makes the result depend on that order).
        rank_base: the first rank, 0 or 1; matters for `direct` and `one-column` only.
        leverage: `two-column` hat matrix (with intercept) or `one-column` (as printed).
        drop_smallest: absolute residuals left out at the small end before the median, 0 or 1.
        keep_equal: whether confidence equal to delta keeps the value.
        zero_rejected: whether a replaced value's confidence counts as zero.
        std_before: whether $\sigma(w)$ is taken before that.
        power: exponent on W / max W.
        floor_abs: added to tau; in units of the data, so that tiny updates pass unscreened (the authors' 1e-7).
        floor_rel: added to tau, as a multiple of the absolute median of the coordinate.

    Raises:
        ConfigError: a parameter out of range, or an unknown variant.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> updates = rng.normal(size=(10, 1000))
        >>> updates[:3] += 100
        >>> result = ResidualReweighting().aggregate(updates)
        >>> result.client_weights.round(2)
        array([0.  , 0.  , 0.  , 0.14, 0.14, 0.14, 0.14, 0.14, 0.14, 0.14])
        >>> result.diagnostics["rejected"].round(2)[:4]
        array([1., 1., 1., 0.])

    Paper: Fu, Xie, Li and Chen, "Attack-Resistant Federated Learning with Residual-based Reweighting", 2019
    (arXiv 1912.11464), section 3.1, (1) to (11).
    """

    def __post_init__(self) -> None:
        for name in ("lam", "gamma", "power"):
            check_number(self, name, least=0.0, above=True)
        for name in ("delta", "floor_abs", "floor_rel"):
            check_number(self, name)
        if self.delta >= 1:
            raise ConfigError(f"ResidualReweighting: delta must be below 1, full confidence, got {self.delta!r}")
        for name in ("rank_base", "drop_smallest"):
            check_count(self, name)
            if getattr(self, name) > 1:
                raise ConfigError(f"ResidualReweighting: {name} must be 0 or 1, got {getattr(self, name)!r}")
        for name in ("keep_equal", "zero_rejected", "std_before"):
            check_flag(self, name)
        check_choice(self, "line", ("repeated-median", "theil-sen", "median"))
        check_choice(self, "weighting", ("huber", "gaussian"))
        check_choice(self, "intercept", INTERCEPTS)
        check_choice(self, "ties", ("average", "stable"))
        check_choice(self, "leverage", ("two-column", "one-column"))

    @classmethod
    def variant(cls, name: str) -> ResidualReweighting:
        """A published form: `"paper"` (as printed) or `"official"` (as in the authors' code).

        >>> ResidualReweighting.variant("paper").power
        1.0
        """
        if name not in PRESETS:
            raise ConfigError(f"variant must be one of {', '.join(PRESETS)}, got {name!r}")
        return cls(**PRESETS[name])

    def min_clients(self) -> int:
        """One; up to three clients give their mean, which any of them can spoil."""
        return 1

    def plan(self, rows: Rows, given: Given) -> Plan:
        """First pass: weigh the clients. The plan's columns are the second."""
        weights, rejected = np.zeros(rows.n), np.zeros(rows.n)
        fits: dict[tuple[int, int], irls.Fit] = {}
        kept = 0
        for where, block in rows.blocks():
            fit = irls.fit_block(block, self)
            weights += fit.weights
            rejected += fit.rejected
            kept += fit.nbytes
            if kept <= KEEP_BYTES:
                fits[where.start, where.stop] = fit
        shares = irls.shares(weights, self.power)

        def columns(where: slice, block: Block) -> Block:
            return irls.correct_block(block, shares, self, fits.get((where.start, where.stop)))

        return Plan(
            columns,
            influence=shares,
            diagnostics={"rejected": rejected / max(rows.d, 1), "weights": weights},
        )
