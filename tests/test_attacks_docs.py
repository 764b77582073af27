"""The documentation names every attack, every wrapper and every parameter."""

import re
from dataclasses import fields
from pathlib import Path

import pytest

from holdfast.attacks import ADVERSARIES, ATTACKS, WRAPPERS

DOC = (Path(__file__).resolve().parents[1] / "docs" / "attacks.md").read_text()


@pytest.mark.parametrize("name", [*ATTACKS, *WRAPPERS])
def test_every_attack_has_its_row_with_all_parameters(name):
    kind = {**ATTACKS, **WRAPPERS}[name]
    rows = [line for line in DOC.splitlines() if line.startswith("|") and f"`{name}`" in line.split("|")[1]]
    assert rows, f"docs/attacks.md has no row for {name}"
    for field in fields(kind):
        if field.name not in ("knowledge", "attack"):
            assert any(f"`{field.name}`" in row.split("|")[-2] for row in rows), f"{name}: {field.name}"


def test_no_row_is_about_something_that_does_not_exist():
    known = {*ATTACKS, *WRAPPERS, '"nothing"', '"own"', '"all"', '"rule"', "knowledge"}
    for line in DOC.splitlines():
        if line.startswith("| `"):
            assert set(re.findall(r"`([^`]+)`", line.split("|")[1])) <= known, line


def test_adversaries_are_named():
    assert all(f"`{name}`" in DOC for name in ADVERSARIES)


def test_the_example_runs():
    code = re.search(r"```python\n(.*?)```", DOC, re.DOTALL)
    assert code
    scope: dict[str, object] = {}
    exec(code.group(1), scope)
    assert scope["malicious"].shape == (3, 1000)
