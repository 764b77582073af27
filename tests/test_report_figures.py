"""Figures draw the report's numbers, are the same bytes every time, and never replace an earlier file unasked."""

from dataclasses import replace
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.image import imread

from holdfast.report import HeatMap, LinePlot, Series, certified_plot, pick_examples, radius_histograms
from holdfast.report.charts import line_chart
from holdfast.report.examples import extremes, picture_of
from holdfast.report.figures import (
    certified_figure,
    examples_figure,
    heat_figure,
    line_figure,
    save_figure,
    save_report_figures,
)
from holdfast.report.palette import dash
from holdfast.types import ArtifactError, ConfigError, DataError

from .report_content import example_report


def test_a_report_becomes_png_and_svg(tmp_path):
    paths = save_report_figures(example_report(200), tmp_path / "figures")
    names = {p.name for p in paths}
    assert names == {
        f"{n}.{k}" for n in ("certified-accuracy", "certified-rate", "radii", "examples") for k in ("png", "svg")
    }
    for path in paths:
        if path.suffix == ".png":
            picture = imread(path)
            assert picture.ndim == 3
            assert picture[..., :3].std() > 0.01, f"{path.name} is blank"
        else:
            assert ElementTree.parse(path).getroot().tag.endswith("svg")


def test_the_same_figure_gives_the_same_bytes(tmp_path):
    for folder in ("a", "b"):
        save_figure(certified_figure(example_report(200)), tmp_path / folder / "f")
    for kind in ("png", "svg"):
        assert (tmp_path / "a" / f"f.{kind}").read_bytes() == (tmp_path / "b" / f"f.{kind}").read_bytes()


def test_an_earlier_figure_is_kept(tmp_path):
    (tmp_path / "f.png").write_bytes(b"mine")
    figure = heat_figure(HeatMap("t", "r", "c", ("a",), ("b",), np.array([[0.5]])))
    with pytest.raises(ArtifactError, match="exists already"):
        save_figure(figure, tmp_path / "f")
    assert (tmp_path / "f.png").read_bytes() == b"mine"
    save_figure(figure, tmp_path / "f", overwrite=True)
    assert (tmp_path / "f.png").read_bytes() != b"mine"


def test_curves_are_the_certified_shares_and_baselines():
    report = example_report(300, designs=3)
    plot = certified_plot(report)
    for summary, series in zip(report.kinds, plot.series, strict=False):
        np.testing.assert_array_equal(series.y, [summary.certified_accuracy(int(m)) for m in series.x])
        assert series.y[-1] == 0.0
    single, trusted = plot.series[-2:]
    assert single.y[0] == 0.981
    assert not single.y[1:].any()
    assert set(trusted.y) == {0.742}
    drawn = line_figure(plot).axes[0].get_lines()
    np.testing.assert_array_equal(drawn[0].get_ydata(), plot.series[0].y)
    kinds = {(s.color, s.dash) for s in plot.series}
    assert len(kinds) == len(plot.series), "two curves look alike"


def test_equal_curves_do_not_hide_each_other():
    report = example_report(100)
    first = report.kinds[0]
    same = tuple(replace(first, kind=kind) for kind in ("deployed", "secret", "ideal"))
    patterns = [dash(s.dash) for s in certified_plot(replace(report, kinds=same)).series[:3]]
    assert patterns[0] == ()
    assert len(set(patterns)) == 3


@given(st.integers(1, 60))
def test_histograms_lose_no_input(bars):
    report = example_report(120, designs=3)
    for summary, histogram in zip(report.kinds, radius_histograms(report, bars), strict=True):
        assert len(histogram.right) <= bars
        assert sum(histogram.right) == summary.correct(0)
        assert sum(histogram.right) + sum(histogram.wrong) + histogram.abstained == summary.n_inputs


def test_bands_gaps_and_single_points_are_drawn():
    x = np.arange(5)
    gap = Series.of("gap", x, [1, 2, np.nan, 4, 5], [0, 1, np.nan, 3, 4], [2, 3, np.nan, 5, 6])
    point = Series.of("point", [3], [2.5])
    for steps in (False, True):
        plot = LinePlot("t", "x", "y", (gap, point), steps=steps, percent=False)
        assert line_figure(plot).axes[0].get_ylim()[1] > 6
        svg = ElementTree.fromstring("<p>" + line_chart(plot, "d") + "</p>")
        curve = next(e for e in svg.iter("path") if e.get("class") == "curve")
        assert curve.get("d").count("M") == 2, "a missing value must leave a gap"
        assert any(e.get("class") == "band" for e in svg.iter("path"))
    with pytest.raises(ConfigError, match="must be"):
        Series.of("bad", [1, 2], [1])
    with pytest.raises(ConfigError, match="no series"):
        LinePlot("t", "x", "y", ())


def test_examples_are_the_extremes_with_varied_labels():
    radius = np.array([5, 5, 5, 5, 2, 0, -1, 1])
    prediction = np.array([1, 1, 1, 2, 3, 3, -1, 3])
    picked = pick_examples(prediction, radius, labels=[1, 1, 1, 2, 0, -1, 0, 3], label_names=list("abcd"), each=2)
    assert [e.radius for e in picked] == [5, 5, 0, -1]
    assert {e.prediction for e in picked[:2]} == {"b", "c"}
    assert picked[2].label is None
    assert picked[3].prediction is None
    most, least = extremes(picked, 2)
    assert [e.radius for e in most] == [5, 5]
    assert [e.radius for e in least] == [-1, 0]


@given(st.integers(0, 12), st.integers(1, 6))
def test_no_example_is_shown_twice(count, each):
    examples = pick_examples(np.zeros(count, int), np.arange(count), each=each)
    most, least = extremes(examples, each)
    shown = [e.index for e in (*most, *least)]
    assert len(shown) == len(set(shown)) == min(count, 2 * each)
    assert all(a.radius > b.radius for a in most for b in least)


@pytest.mark.parametrize("shape", [(8, 6), (1, 8, 6), (8, 6, 1), (8, 6, 3), (3, 8, 6)])
def test_any_picture_layout_is_understood(shape):
    picture = picture_of(np.random.default_rng(0).normal(size=shape) * 50)
    assert picture.shape[:2] == (8, 6)
    assert picture.min() == 0.0
    assert picture.max() == 1.0


def test_odd_pictures_are_survived_or_refused():
    assert not picture_of(np.full((4, 4), 7.0)).any()
    assert np.isfinite(picture_of([[np.nan, np.inf], [1.0, -np.inf]])).all()
    with pytest.raises(DataError, match="image has shape"):
        picture_of(np.zeros(561))
    with pytest.raises(ConfigError, match="no picture"):
        examples_figure(example_report(50, images=False))
