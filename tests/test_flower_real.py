"""One round over real processes: a SuperLink, two SuperNodes, Flower's own start-up, and RobustStrategy."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("flwr", reason="Flower is not installed: pip install 'holdfast[flower]'")

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.slow
def test_a_real_round_and_what_the_strategy_takes_of_it() -> None:
    """The benchmark asserts that the model is what two nodes adding 1 make of zeros."""
    command = [sys.executable, str(ROOT / "benchmarks" / "flower_round.py"), "--quick"]
    env = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(command, capture_output=True, text=True, env=env, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    assert "2 nodes, 1,000,000 parameters: a round" in done.stdout
