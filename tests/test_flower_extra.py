"""Without Flower, or with a version nobody tested, the user reads one sentence."""

import importlib.metadata
import subprocess
import sys

import pytest

import holdfast.flower

WITHOUT = """
import importlib.metadata, sys
found = importlib.metadata.version
def version(name):
    if name == "flwr":
        raise importlib.metadata.PackageNotFoundError(name)
    return found(name)
importlib.metadata.version = version
sys.modules["flwr"] = None
import holdfast.flower
import holdfast.cli
try:
    from holdfast.flower import RobustStrategy
except holdfast.types.ConfigError as problem:
    print(problem)
"""


def test_without_flower_the_extra_is_named_and_all_else_works() -> None:
    done = subprocess.run([sys.executable, "-c", WITHOUT], capture_output=True, text=True, check=True)
    assert done.stdout == "holdfast.flower needs Flower, which is not installed: pip install 'holdfast[flower]'\n"


def test_importing_the_package_does_not_import_flower() -> None:
    code = "import sys, holdfast.flower, holdfast.cli; print('flwr' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


@pytest.mark.parametrize(
    ("version", "warns"), [("1.40.9", True), ("1.41.0", False), ("1.42.3.dev1", False), ("1.43.0", True), ("2.0", True)]
)
def test_versions_outside_the_tested_range_are_named(
    monkeypatch: pytest.MonkeyPatch, version: str, warns: bool
) -> None:
    monkeypatch.setattr(importlib.metadata, "version", lambda _: version)
    if warns:
        with pytest.warns(RuntimeWarning, match=rf"flwr {version} is outside .* flwr>=1.41,<1.43"):
            holdfast.flower.require_flower()
    else:
        holdfast.flower.require_flower()


def test_unknown_names_are_attribute_errors() -> None:
    with pytest.raises(AttributeError, match="no attribute 'RobustStrateg'"):
        _ = holdfast.flower.RobustStrateg
    for name in holdfast.flower.__all__:
        if name != "TESTED":
            assert callable(getattr(holdfast.flower, name)) or isinstance(getattr(holdfast.flower, name), type)
