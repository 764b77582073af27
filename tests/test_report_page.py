"""The HTML page is one safe, self-contained, deterministic file: user text is text, nothing is loaded or called."""

import base64
import hashlib
import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest

from holdfast.report import Example, headline, summarize
from holdfast.report.page import render_page, write_page
from holdfast.types import ArtifactError

from .report_content import Radii, example_report

HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(1)>\"'&{{7*7}}"


class Elements(HTMLParser):
    """Every element with its attributes, and the text of chosen ones."""

    def __init__(self, page):
        super().__init__()
        self.found, self.text, self.open = [], {}, []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))
        self.open.append(tag)

    def handle_endtag(self, tag):
        if tag in self.open:
            while self.open.pop() != tag:
                pass

    def handle_data(self, text):
        for tag in self.open[-1:]:
            self.text.setdefault(tag, []).append(text)


def hostile_report():
    report = example_report(50)
    kinds = tuple(replace(s, design=HOSTILE + s.kind, method=HOSTILE, assumptions=(HOSTILE,)) for s in report.kinds)
    fields = dict.fromkeys(("title", "dataset", "run", "command", "seed_commitment"), HOSTILE)
    maps = {name: {HOSTILE: HOSTILE} for name in ("config", "hashes", "versions")} | {"timings": {HOSTILE: 1.0}}
    examples = (Example(0, HOSTILE, HOSTILE + "!", 3, np.eye(4), ((HOSTILE, 5),)),)
    return replace(report, kinds=kinds, examples=examples, not_covered=(HOSTILE,), **fields, **maps)


def test_user_text_never_becomes_markup():
    page = Elements(render_page(hostile_report()))
    plain = Elements(render_page(example_report(50)))
    assert [tag for tag, _ in page.found].count("script") == 2
    assert not [a for _, a in page.found if any(name.startswith("on") for name in a)]
    assert {tag for tag, _ in page.found} == {tag for tag, _ in plain.found}
    assert HOSTILE in page.text["h1"]
    assert "49" not in page.text["h1"][0]


@pytest.mark.parametrize("report", [example_report(50), hostile_report()], ids=["usual", "hostile"])
def test_nothing_is_loaded_and_only_our_script_may_run(report):
    text = render_page(report)
    page = Elements(text)
    policy = next(a["content"] for t, a in page.found if t == "meta" and a.get("http-equiv"))
    assert policy.startswith("default-src 'none'; img-src data:;")
    assert "unsafe" not in policy
    for tag in ("style", "script"):
        body = re.search(rf"<{tag}>(.*?)</{tag}>", text, re.S)[1]
        digest = base64.b64encode(hashlib.sha256(body.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy
    for tag, attributes in page.found:
        assert tag not in {"link", "iframe", "object", "embed", "base"}
        assert "style" not in attributes, "inline styles are blocked by the policy"
        for name in ("src", "href", "action", "data"):
            assert attributes.get(name, "#").startswith(("#", "data:image/png;base64,"))


def test_every_picture_and_chart_has_words():
    page = Elements(render_page(example_report(200, designs=3)))
    for tag, attributes in page.found:
        if tag == "img":
            assert attributes["alt"].startswith("Test input ")
        if tag == "svg":
            assert attributes.get("aria-hidden") == "true" or len(attributes["aria-label"]) > 20
    identifiers = [a["id"] for _, a in page.found if "id" in a]
    assert len(identifiers) == len(set(identifiers))
    for _, attributes in page.found:
        for reference in ("aria-labelledby", "aria-describedby", "for"):
            assert attributes.get(reference, identifiers[0]) in identifiers


def test_the_answer_comes_first_and_the_run_can_be_checked():
    report = example_report()
    text = render_page(report)
    page = Elements(text)
    assert headline(report) in page.text["p"]
    assert text.index(headline(report)) < text.index("<h2")
    assert "holdfast recertify runs/digits-1" in page.text["code"]
    for value in (*report.hashes.values(), *report.versions.values(), report.seed_commitment):
        assert value in page.text["code"]


def test_the_script_gets_exact_counts():
    report = example_report()
    data = json.loads(
        re.search(r'<script type="application/json" id="data">(.*?)</script>', render_page(report), re.S)[1]
    )
    for summary, row in zip(report.kinds, data["rows"], strict=True):
        assert row["correct"] == [summary.correct(m) for m in range(report.max_radius + 2)]
        assert row["certified"] == [summary.certified(m) for m in range(report.max_radius + 2)]


def test_the_same_report_gives_the_same_small_page():
    report = example_report(designs=3)
    page = render_page(report)
    assert page == render_page(example_report(designs=3))
    assert len(page.encode()) < 400_000


@pytest.mark.parametrize(
    "rows",
    [[(-1, -1)], [(0, 1)], [(1, 1), (-1, -1)], [(5000, 1), (0, 2)]],
    ids=["all abstain", "radius 0 only", "radius 1", "huge radius"],
)
def test_extreme_runs_still_make_a_page(rows):
    radius, prediction = (np.array(column) for column in zip(*rows, strict=True))
    summary = summarize(Radii("ideal", prediction, radius, 0.05, "split", ()), np.ones(len(rows), int))
    report = replace(example_report(30), kinds=(summary,), examples=())
    page = render_page(report)
    assert headline(report) in page
    assert "nan" not in page.lower().replace("dominance", "").replace("tenance", "").split("<script>")[0]


def test_an_earlier_page_is_kept_unless_allowed(tmp_path):
    path = tmp_path / "sub" / "report.html"
    report = example_report(50)
    assert write_page(report, path) == path
    path.write_text("mine")
    with pytest.raises(ArtifactError, match="exists already"):
        write_page(report, path)
    assert path.read_text() == "mine"
    write_page(report, path, overwrite=True)
    assert path.read_text() == render_page(report)
    assert [p.name for p in path.parent.iterdir()] == ["report.html"]
