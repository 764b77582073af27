"""Every rule's docstring has what its page needs, and the pages in docs/ are the ones the docstrings give."""

from pathlib import Path
from typing import Any

import pytest

from holdfast.aggregation import RULES, docs

DOCS = Path(__file__).resolve().parents[1] / "docs"


@pytest.mark.parametrize(("name", "rule"), list(RULES.items()))
def test_every_docstring_is_complete(name: str, rule: type[Any]) -> None:
    parts = docs.sections(rule)
    for section in ("Formula", "Shapes", "Tolerates", "Fails", "Cost", "Example", "Paper"):
        assert parts.get(section), f"{name} does not say: {section}"
    for field in rule.__dataclass_fields__:
        assert f"{field}:" in parts["Args"], f"{name} does not document {field}"


def test_pages_are_up_to_date(capsys: pytest.CaptureFixture[str]) -> None:
    assert docs.main(["--check", "--docs", str(DOCS)]) == 0, capsys.readouterr().err


def test_check_notices_what_is_stale(tmp_path: Path) -> None:
    assert docs.main(["--check", "--docs", str(tmp_path)]) == 1
    assert docs.main(["--docs", str(tmp_path)]) == 0
    assert docs.main(["--check", "--docs", str(tmp_path)]) == 0
    (tmp_path / "rules" / "krum.md").write_text("old")
    (tmp_path / "rules" / "gone.md").write_text("a rule that is no more")
    assert docs.main(["--check", "--docs", str(tmp_path)]) == 1
    assert docs.main(["--docs", str(tmp_path)]) == 0
    assert sorted(path.stem for path in (tmp_path / "rules").iterdir()) == sorted(RULES)
