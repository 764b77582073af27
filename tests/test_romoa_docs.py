"""The page on Romoa: its example runs, and it names every preset and every verdict as the code gives them."""

import re
from pathlib import Path

from holdfast.aggregation.romoa import PRESETS
from holdfast.experiments.game import claims

DOC = (Path(__file__).resolve().parents[1] / "docs" / "romoa.md").read_text()


def test_the_example_runs(capsys):
    code = re.search(r"```python\n(.*?)```", DOC, re.DOTALL)
    assert code
    exec(code.group(1), {})
    assert capsys.readouterr().out == "True {8: 1, 9: 1}\n"


def test_presets_are_described():
    assert all(f"| `{preset}` |" in DOC for preset in PRESETS)


def test_verdicts_on_the_game_are_those_of_the_code():
    for claim in claims(max_n=3, max_d=2)[:3]:
        line = next(
            line for line in DOC.splitlines() if line.replace("*", "").startswith(f"| {claim.text}".replace("*", ""))
        )
        assert ("does not hold" in line) != claim.holds
