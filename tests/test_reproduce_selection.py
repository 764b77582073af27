"""The randomized-selection paper again: what formulas give, exactly, and that every figure comes out of small runs."""

import json
import math
import time
from fractions import Fraction

import pytest

from holdfast.experiments.claims_selection import formulas
from holdfast.experiments.paper_selection import PANELS, SCHEMES, scale
from holdfast.experiments.reproduce_selection import figure2, reproduce_selection
from holdfast.types import ConfigError


def weight(scheme, n, k, x):
    """T(x), written anew."""
    if scheme == "without":
        return Fraction(math.comb(x, k), math.comb(n, k))
    return Fraction(x, n) ** k if scheme == "with" else (1 - Fraction(k, n)) ** (n - x)


def test_figure_2_is_the_formula():
    for (name, plot), panel in zip(figure2(), PANELS, strict=True):
        assert name == panel.name
        for series, scheme in zip(plot.series, SCHEMES, strict=True):
            assert series.y[0] == 0
            assert (series.y[1:] > series.y[:-1]).all()
            assert series.y[-2] < 1.03  # the curve ends where nothing can be certified any more
            for rho in (1, 7, panel.largest):
                exact = 2 - 2 * weight(scheme, panel.n, panel.size, panel.n - rho)
                assert series.y[rho] == pytest.approx(float(exact), rel=1e-14)


def test_the_delta_figures_take_less_than_a_second_and_need_no_run(tmp_path):
    began = time.process_time()
    assert len(figure2()) == 2
    assert time.process_time() - began < 1
    found = reproduce_selection(tmp_path, scale_name="paper", only=("nothing",))  # no data, no training
    assert {path.stem for path in found.figures} == {"figure-2-left", "figure-2-right"}
    assert not (tmp_path / "runs").exists()
    claims = {row[0]: row[-1] for row in found.tables[0].rows}
    assert sorted(claims.values()) == ["agrees"] * 3 + ["lower"] + ["not measured"] * 3


def test_printed_numbers_that_formulas_give():
    found = {c.claim: c for c in formulas()}
    verdicts = [(c.published, c.ours, c.verdict) for c in found.values()][:3]
    assert verdicts == [(855, 855, "agrees"), (857, 855, "lower"), (868, 868, "agrees")]
    sizes = list(found.values())[3]
    assert sizes.low <= 994 <= sizes.high
    tail = sum(math.comb(13_007, i) * 10**i * 12_997 ** (13_007 - i) for i in range(4)) / Fraction(13_007**13_007)
    assert sizes.ours == pytest.approx(1000 * float(1 - tail), rel=1e-9)


def test_every_scale_has_its_runs_and_binomial_has_a_constant():
    for name in ("smoke", "cpu", "paper"):
        arms = scale(name).arms()
        assert len(arms) >= 8
        for arm, config in arms.items():
            assert (config.p is not None) == ("binomial" in arm)
    assert {config.data for config in scale("paper").arms().values()} == {"mnist", "cifar10"}
    with pytest.raises(ConfigError, match="not one of smoke, cpu, paper"):
        scale("huge")


def test_a_small_run_draws_its_figures(tmp_path):
    names = ("digits-1-7-binomial-10", "digits-1-7-without-10-trusted-20", "two-phase-10")
    found = reproduce_selection(tmp_path, seed="a", only=names, threads=1)
    drawn = {path.stem for path in found.figures}
    assert {"figure-2-left", "figure-2-right", "figure-5-top", "figure-5-bottom", "figure-6-two-phase"} <= drawn
    assert {"figure-4-digits-1-7-binomial", "figure-4-digits-1-7-without"} <= drawn
    titles = [table.title for table in found.tables]
    assert titles[0] == "Published numbers beside ours"
    told = json.loads((tmp_path / "reproduction-smoke.json").read_text())
    four = next(table for table in told["tables"] if table["title"] == "Figure 4 in numbers")
    assert {row["run"] for row in four["rows"]} == set(names[:2])
    assert [row["trusted only"] is not None for row in four["rows"]] == [False, True]
    times = next(table for table in told["tables"] if table["title"] == "What the runs took")["rows"]
    assert [row["models"] for row in times] == [40, 40, 40]
    assert all(row["CPU-seconds"] > 0 for row in times)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("runs/*/votes.npz")}
    again = reproduce_selection(tmp_path, only=names)  # all there already, whatever the seed
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert [table.rows for table in again.tables] == [table.rows for table in found.tables]
    with pytest.raises(ConfigError, match="only names 'other'"):
        reproduce_selection(tmp_path, only=("other",))
