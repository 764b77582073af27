"""What every test shares: Hypothesis profiles, and the reference data that lies beside a development checkout."""

import signal
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# Reference vectors and real data are not part of the package; a checkout may have them beside it.
SHARED = Path(__file__).resolve().parents[2] / "shared"

# A shell starts what runs in its background with Ctrl-C ignored, and programs that tests start would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)

settings.register_profile("default", deadline=None, max_examples=50, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("default")


def shared(relative: str) -> Path:
    """A file beside the checkout, or a skip that says what is missing."""
    path = SHARED / relative
    if not path.exists():
        pytest.skip(f"reference data {relative} is not beside this checkout")
    return path
