"""The documentation names every data set, every partition and every parameter, and its example runs."""

import inspect
import re
from pathlib import Path

import pytest

from holdfast.data import DATASETS, PARTITIONS

DOC = (Path(__file__).resolve().parents[1] / "docs" / "data.md").read_text()
ROWS = {line.split("|")[1].strip(" `"): line for line in DOC.splitlines() if line.startswith("| `")}


@pytest.mark.parametrize("name", [*DATASETS, *PARTITIONS])
def test_every_name_has_a_row(name):
    assert name in ROWS


@pytest.mark.parametrize("kind", PARTITIONS)
def test_every_parameter_is_in_its_row(kind):
    parameters = inspect.signature(PARTITIONS[kind]).parameters.values()
    named = {p.name for p in parameters if p.kind is p.KEYWORD_ONLY} - {"users"}
    assert set(re.findall(r"`(\w+)`", ROWS[kind].split("|")[3])) == named


def test_the_example_runs():
    code = re.search(r"```python\n(.*?)```", DOC, re.DOTALL)
    assert code
    scope: dict[str, object] = {}
    exec(code.group(1), scope)
    assert scope["who"].sum() == len(scope["digits"].y_train)
    assert len(scope["mine"]) == scope["parts"].sizes[0]
