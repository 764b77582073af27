"""The report page in a real browser: opens offline, asks the network for nothing, and its numbers are the tables'."""

import re
from pathlib import Path

import pytest

from holdfast.report.page import write_page
from holdfast.report.wording import share

from .report_content import example_report
from .test_report_page import hostile_report

CHROMIUM = Path("/usr/bin/chromium")
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture(scope="module")
def browser():
    if not CHROMIUM.exists():
        pytest.skip(f"{CHROMIUM} is not installed; the page is tested in a real browser only where it is")
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with api.sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=str(CHROMIUM), args=ARGUMENTS)
        yield running
        running.close()


@pytest.fixture
def open_page(browser, tmp_path):
    """Open a report from file:// with the network off; afterwards no error and no request may have happened."""
    contexts, problems = [], []

    def opened(report, **options):
        path = write_page(report, tmp_path / "report.html")
        context = browser.new_context(offline=True, **options)
        contexts.append(context)
        page = context.new_page()
        page.on("request", lambda r: r.url == path.as_uri() or r.url.startswith("data:") or problems.append(r.url))
        page.on("console", lambda m: problems.append(m.text) if m.type in ("error", "warning") else None)
        page.on("pageerror", lambda e: problems.append(str(e)))
        page.on("dialog", lambda d: (problems.append(d.message), d.dismiss()))
        page.goto(path.as_uri())
        return page

    yield opened
    for context in contexts:
        context.close()
    assert problems == []


def set_m(page, m):
    page.locator("#m").evaluate("(e, m) => { e.value = m; e.dispatchEvent(new Event('input')); }", m)


def shown(page, row, cell):
    return page.locator(f'[data-row="{row}"] [data-cell={cell}]').inner_text()


def test_the_slider_shows_the_certified_numbers_at_every_m(open_page):
    report = example_report(983)  # a number of inputs whose shares need rounding
    page = open_page(report)
    for m in range(report.max_radius + 2):
        set_m(page, m)
        for row, s in enumerate(report.kinds):
            assert shown(page, row, "main") == f"{share(s.correct(m), s.accuracy_base)}%"
            assert shown(page, row, "rate") == f"{share(s.certified(m), s.n_inputs)}%"
            assert shown(page, row, "count") == f"{s.correct(m):,}"
        single, trusted = (page.locator(f'[data-baseline="{i}"] [data-cell=main]').inner_text() for i in (0, 1))
        assert (single, trusted) == ("98.1%" if m == 0 else "0.0%", "74.2%")


def test_the_page_before_any_script_shows_the_same_numbers(open_page):
    report = example_report()
    page = open_page(report, java_script_enabled=False)
    m = report.headline_m()
    for row, s in enumerate(report.kinds):
        assert shown(page, row, "main") == f"{share(s.correct(m), s.accuracy_base)}%"
    assert page.locator(".chart.line.wide").first.is_visible()
    assert not page.locator("#m").is_visible()


def test_a_keyboard_alone_reaches_slider_and_legend(open_page):
    report = example_report()
    page = open_page(report)
    for _ in range(4):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.id") == "m":
            break
    assert page.evaluate("document.activeElement.id") == "m"
    page.keyboard.press("ArrowRight")
    assert page.locator("#m-value").inner_text() == str(report.headline_m() + 1)
    assert page.locator("#m").get_attribute("aria-valuetext") == f"{report.headline_m() + 1} of 1000"
    button = page.locator('[data-chart=accuracy] [data-toggle="1"]')
    button.focus()
    page.keyboard.press("Space")
    assert button.get_attribute("aria-pressed") == "false"
    curve = page.locator('[data-chart=accuracy] .wide [data-series="1"]')
    assert not curve.is_visible()
    page.keyboard.press("Space")
    assert curve.is_visible()


def test_pointing_reads_the_curves_and_clicking_sets_m(open_page):
    report = example_report()
    page = open_page(report)
    svg = page.locator("[data-chart=accuracy] svg.line.wide")
    svg.scroll_into_view_if_needed()
    m = 30
    place = svg.evaluate(
        """(svg, m) => { const d = svg.dataset, box = svg.getBoundingClientRect();
        const x = +d.x0 + (m - d.low) / (d.high - d.low) * (d.x1 - d.x0);
        return [x / svg.viewBox.baseVal.width * box.width, box.height / 2]; }""",
        m,
    )
    at = {"x": place[0], "y": place[1]}
    svg.hover(position=at)
    tip = page.locator("[data-chart=accuracy] .tip")
    assert tip.is_visible()
    text = tip.inner_text()
    assert "m = 30" in text
    for s in report.kinds:
        assert f"{share(s.correct(m), s.accuracy_base)}%" in text
    values = [float(v) for v in re.findall(r"([\d.]+)%", text)]
    assert values == sorted(values, reverse=True)
    svg.click(position=at)
    assert page.locator("#m-value").inner_text() == "30"
    faded = page.locator(".bar.below").count()
    assert 0 < faded < page.locator(".bar").count()
    set_m(page, 0)
    assert page.locator(".bar.below:not(.abstained)").count() == 0


@pytest.mark.parametrize("width", [320, 390, 700, 1200])
@pytest.mark.parametrize("designs", [1, 3])
def test_no_screen_needs_sideways_scrolling(open_page, width, designs):
    page = open_page(example_report(200, designs=designs), viewport={"width": width, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    size = "narrow" if width < 640 else "wide"
    assert page.locator(f"[data-chart=accuracy] .line.{size}").is_visible()
    assert page.locator("[data-chart=accuracy] .line:visible").count() == 1
    table = page.locator("table.live")
    assert table.evaluate("e => e.scrollWidth <= e.parentElement.clientWidth + 1")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_and_curves_stand_out_from_the_background(open_page, scheme):
    page = open_page(example_report(100, designs=3), color_scheme=scheme)
    ratios = page.evaluate(
        """() => {
        const parse = (c) => c.match(/[\\d.]+/g).slice(0, 3).map(Number);
        const light = (c) => { const [r, g, b] = parse(c).map((v) => { v /= 255;
            return v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; });
            return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
        const ratio = (a, b) => { const [x, y] = [light(a), light(b)].sort((p, q) => q - p);
            return (x + 0.05) / (y + 0.05); };
        const paper = getComputedStyle(document.documentElement).backgroundColor;
        const of = (selector, property) => [...document.querySelectorAll(selector)].map(
            (e) => ratio(getComputedStyle(e)[property], paper));
        return { text: Math.min(...of('p,td,th,li,dt,small,.tag,h2,.wrong,a', 'color')),
                 curves: Math.min(...of('.curve', 'stroke'), ...of('.bar.right,.bar.wrong', 'fill')) };
        }"""
    )
    assert ratios["text"] >= 4.5
    assert ratios["curves"] >= 3.0


def test_paper_is_white_and_shows_no_controls(open_page):
    page = open_page(example_report(100), color_scheme="dark")
    page.emulate_media(media="print")
    assert page.evaluate("getComputedStyle(document.documentElement).backgroundColor") == "rgb(255, 255, 255)"
    assert not page.locator("#m").is_visible()
    assert page.locator(".chart.line.wide").first.is_visible()


def test_hostile_names_stay_text(open_page):
    page = open_page(hostile_report())
    assert page.locator("h1").inner_text() == hostile_report().title
    set_m(page, 3)
    svg = page.locator("[data-chart=accuracy] svg.line.wide")
    svg.hover()
    assert page.locator("img").count() == 1
    page.wait_for_timeout(50)


def test_a_run_without_labels_or_pictures_works(open_page):
    report = example_report(100, images=False, labeled=False)
    page = open_page(report)
    set_m(page, 5)
    for row, s in enumerate(report.kinds):
        assert shown(page, row, "main") == f"{share(s.certified(5), s.n_inputs)}%"
    page.locator("[data-chart=rate] svg.line.wide").hover()
    assert page.locator("[data-chart=rate] .tip").is_visible()
    assert page.locator("[data-chart=accuracy]").count() == 0
