"""The report's numbers are the certificate's, never rounded up, and the same in every form."""

import doctest
import json
import re
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from holdfast.certification import Certificate
from holdfast.report import (
    CertificateSummary,
    CertifyReport,
    Comparison,
    HeatMap,
    Table,
    as_text,
    certified_tables,
    comparison_table,
    headline,
    heat_table,
    levels,
    show,
    summarize,
    to_json,
)
from holdfast.report.wording import assumptions, limits, promise, share, survival
from holdfast.types import ConfigError, DataError

from .report_content import example_report

INPUTS = st.lists(st.tuples(st.integers(-1, 9), st.integers(0, 3), st.integers(-1, 3)), min_size=1, max_size=40)


def certificate(rows, kind="deployed", alpha=0.0):
    radius = np.array([r for r, _, _ in rows])
    prediction = np.where(radius < 0, -1, [p for _, p, _ in rows])
    return Certificate(kind, prediction, radius, alpha, "test", ("an assumption",))


def report_of(*summaries, **fields):
    return CertifyReport("title", "data", 100, 10, summaries, **fields)


@given(INPUTS)
def test_summary_agrees_with_counting_input_by_input(rows):
    labels = np.array([t for _, _, t in rows])
    summary = summarize(certificate(rows), labels)
    known = [row for row in rows if row[2] >= 0]
    for m in range(12):
        assert summary.certified(m) == sum(r >= m for r, _, _ in rows if r >= 0)
        if known:
            assert summary.correct(m) == sum(r >= m and r >= 0 and p == t for r, p, t in known)
            assert summary.certified_accuracy(m) == summary.correct(m) / len(known)
    assert summary.labeled == bool(known)
    assert summary.n_inputs == len(rows)


@given(INPUTS)
def test_summary_agrees_with_the_certificate(rows):
    source, labels = certificate(rows), np.array([t for _, _, t in rows])
    summary = summarize(source, labels)
    assert summary.max_radius == source.max_radius
    for m in range(11):
        assert summary.certified_rate(m) == pytest.approx(source.certified_rate(m), abs=1e-12)
    if summary.labeled:
        ours = [summary.certified_accuracy(m) for m in range(summary.max_radius + 2)]
        np.testing.assert_allclose(ours, source.curve(labels), atol=1e-12)


@given(st.integers(0, 10**6), st.integers(1, 10**6))
def test_a_printed_share_never_exceeds_the_true_one(count, total):
    count = min(count, total)
    text = share(count, total)
    if text == "<0.1":
        assert 0 < count * 1000 < total
    else:
        tenths = round(float(text) * 10)
        assert tenths * total <= 1000 * count < (tenths + 1) * total
    assert (text == "0.0") == (count == 0)


@given(st.integers(-1, 5000), st.integers(7, 14))
def test_levels_start_at_zero_and_one_and_end_at_the_largest_radius(largest, limit):
    ms = levels(largest, limit)
    assert list(ms) == sorted(set(ms))
    assert len(ms) <= limit
    assert ms[0] == 0
    assert ms[-1] == max(largest, 0)
    assert largest < 1 or 1 in ms


def test_the_first_sentence_names_the_deployed_certificate_and_a_telling_m():
    report = example_report()
    m = report.headline_m()
    s = report.headline
    assert s.kind == "deployed"
    assert 10 * s.correct(m) >= 8 * s.correct(0)
    sentence = headline(report)
    assert sentence == promise(report, s, m)
    assert f"up to {m} of 1,000 clients malicious, at least {share(s.correct(m), 1000)}% of the test inputs" in sentence
    assert "correct label" not in headline(example_report(labeled=False))


def test_sentences_name_the_kind_of_promise():
    report = example_report()
    deployed, secret, ideal = (promise(report, s, 10) for s in report.kinds)
    assert "probability" not in deployed
    assert "99.9% over the secret grouping" in secret
    assert "all possible groups, with confidence 99.9%" in ideal


def test_a_run_that_certifies_nothing_says_so():
    nothing = summarize(certificate([(0, 1, 1), (-1, 1, 1)]), [1, 1])
    assert "gives no guarantee" in headline(report_of(nothing))
    abstained = summarize(certificate([(-1, 1, 1)], "ideal", 0.01), [1])
    assert "gives no guarantee" in headline(report_of(abstained))
    assert promise(report_of(nothing), nothing, 3) == (
        "With 3 of 100 clients malicious, no test input provably keeps its correct label."
    )


def test_radii_in_words():
    report = report_of(summarize(certificate([(3, 1, 1)])))
    words = [survival(report, r) for r in (-1, 0, 1, 2)]
    assert words == [
        "no certificate",
        "survives no malicious client",
        "survives 1 malicious client",
        "survives 2 malicious clients",
    ]


def test_tables_show_every_certificate_at_every_level():
    report = example_report(designs=3)
    accuracy, rate = certified_tables(report)
    ms = [int(c.removeprefix("m=").replace(",", "")) for c in accuracy.columns if c.startswith("m=")]
    assert ms == list(levels(report.max_radius, 8))
    for table, counted, total in ((accuracy, "correct", "accuracy_base"), (rate, "certified", "n_inputs")):
        for summary, row, values in zip(report.kinds, table.rows, table.values, strict=False):
            counts = [getattr(summary, counted)(m) for m in ms]
            assert list(row[3:]) == [share(c, getattr(summary, total)) for c in counts]
            assert list(values[3:]) == [c / getattr(summary, total) for c in counts]
    single = next(row for row in accuracy.rows if row[0].startswith("single FedAvg"))
    assert single[3:] == ("98.1", *["0.0"] * (len(ms) - 1))
    trusted = next(row for row in accuracy.rows if row[0].startswith("trusted"))
    assert set(trusted[3:]) == {"74.2"}
    assert not any(row[0].startswith(("single", "trusted")) for row in rate.rows)


def test_without_labels_only_the_rate_is_shown():
    tables = certified_tables(example_report(labeled=False))
    assert [t.title.split(":")[0] for t in tables] == ["Certified rate"]
    with pytest.raises(DataError, match="needs the true labels"):
        example_report(labeled=False).kinds[0].correct(0)


def test_accuracy_is_a_share_of_the_labeled_inputs_only():
    summary = summarize(certificate([(2, 1, 0), (2, 1, 0), (2, 1, 0), (2, 1, 0)]), [1, -1, -1, 0])
    assert summary.certified_accuracy(2) == 0.5
    assert "at least 50.0%" in promise(report_of(summary), summary, 2)
    table = certified_tables(report_of(summary))[0]
    assert table.rows[0][-1] == "50.0"


@pytest.mark.parametrize("width", [40, 62, 80, 100, 160])
def test_no_width_cuts_a_number(width):
    table = certified_tables(example_report(designs=3))[0]
    text = as_text(table, width=width)
    for row in table.rows:
        for cell in set(row[1:]):
            wanted = sum(r.count(cell) for r in table.rows)
            assert len(re.findall(rf"(?<![\d.<]){re.escape(cell)}(?![\d.])", text)) >= wanted


def test_a_pipe_gets_plain_text_and_markup_is_literal():
    out = StringIO()
    table = Table("[red]title", ("name", "n"), (("[bold]x[/bold]", "1"),))
    show(table, console=Console(file=out))
    assert out.getvalue() == "[red]title\nname            n\n[bold]x[/bold]  1\n\n"
    assert "[bold]x[/bold]" in as_text(table)
    assert "[red]title" in as_text(table)


def test_json_has_exact_curves_that_end_in_zero():
    report = example_report()
    value = json.loads(json.dumps(to_json(report)))
    for summary, record in zip(report.kinds, value["certificates"], strict=True):
        assert record["certified_accuracy"][20] == summary.correct(20) / 1000
        assert record["certified_rate"][-1] == 0.0
        assert record["certified_rate"][-2] > 0.0
        assert sum(record["radius_counts"]) + record["abstained"] == 1000
    assert value["headline"] == headline(report)


def test_assumptions_and_limits_name_the_kinds_they_belong_to():
    report = example_report()
    shared = dict(assumptions(report))
    assert any(names == ("deployed", "secret", "ideal") for names in shared.values())
    assert any(names == ("secret",) for names in shared.values())
    kinds = {kind for _, kind in limits(report)}
    assert kinds == {"", "secret", "ideal"}
    assert not any(kind for _, kind in limits(report_of(report.kinds[0])))


@pytest.mark.parametrize(
    ("published", "ours", "low", "high", "precision", "verdict"),
    [
        (88, 88.4, None, None, 0.5, "agrees"),
        (88, 88.6, 88.51, 88.7, 0.5, "higher"),
        (88, 88.6, 88.4, 88.8, 0.5, "agrees"),
        (88, 80.0, 79.0, 81.0, 0.5, "lower"),
        (61, 61, None, None, 0.0, "agrees"),
        (61, 60, None, None, 0.0, "lower"),
        (None, 60, None, None, 0.0, "not published"),
        (61, None, None, None, 0.0, "not measured"),
    ],
)
def test_verdicts_follow_from_the_numbers(published, ours, low, high, precision, verdict):
    row = Comparison("claim", published, ours, low, high, precision=precision, note="why")
    assert row.verdict == verdict
    table = comparison_table("t", [row])
    assert table.rows[0][-1] == verdict
    assert "[1] why" in table.to_plain()


def test_heat_table_keeps_gaps_and_exact_values():
    table = heat_table(
        HeatMap("error", "rule", "attack", ("a", "b"), ("x", "y"), np.array([[0.123, np.nan], [1.0, 0.0]]))
    )
    assert table.rows == (("a", "12.3", "–"), ("b", "100.0", "0.0"))
    assert table.to_json()["rows"][0] == {"rule \\ attack": "a", "x": 0.123, "y": None}
    flat = HeatMap("t", "r", "c", ("a",), ("x", "y"), np.array([[5.0, 5.0]]), percent=False)
    assert np.isfinite(flat.shades()).all()


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "other"},
        {"alpha": 1.0},
        {"radius_counts": (), "correct_counts": None, "abstained": 0},
        {"correct_counts": (2, 0)},
        {"correct_counts": (1,)},
        {"n_labeled": 99},
    ],
)
def test_contradictory_counts_are_refused(change):
    fields = {
        "kind": "deployed",
        "design": "",
        "method": "",
        "alpha": 0.0,
        "assumptions": (),
        "radius_counts": (1, 1),
        "correct_counts": (1, 1),
        "abstained": 0,
    }
    CertificateSummary(**fields)
    with pytest.raises(ConfigError):
        CertificateSummary(**(fields | change))


def test_reports_of_different_test_sets_are_refused():
    one, two = summarize(certificate([(1, 1, 1)])), summarize(certificate([(1, 1, 1)] * 2))
    with pytest.raises(ConfigError, match="same inputs"):
        report_of(one, two)
    with pytest.raises(ConfigError, match="at least one certificate"):
        report_of()
    with pytest.raises(DataError, match="labels has shape"):
        summarize(certificate([(1, 1, 1)]), [1, 2])


def test_the_examples_of_the_guide_are_true():
    guide = Path(__file__).parents[1] / "docs" / "report.md"
    results = doctest.testfile(str(guide), module_relative=False)
    assert results.attempted >= 8
    assert results.failed == 0
