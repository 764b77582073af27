"""The README and the docs do not rot: examples run, commands and links exist, tables are those of the results."""

import doctest
import re
import shlex
from pathlib import Path

import pytest
from typer.main import get_command

from holdfast.cli import app

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([ROOT / "README.md", *ROOT.glob("docs/**/*.md")])


def commands(text):
    """Every `holdfast ...` line of the code blocks."""
    for block in re.findall(r"```(?:bash|sh|console)?\n(.*?)```", text, flags=re.DOTALL):
        for line in re.sub(r"\\\n\s*", " ", block).splitlines():
            if line.strip().startswith("holdfast "):
                yield shlex.split(line.split("#")[0])[1:]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_examples_run(page):
    if ">>>" not in page.read_text() or page.parent.name == "rules":  # rules: generated from docstrings, tested there
        return
    failed, tried = doctest.testfile(str(page), module_relative=False)
    assert tried
    assert failed == 0


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_and_their_options_exist(page):
    for words in commands(page.read_text()):
        command = get_command(app)
        while words and hasattr(command, "commands") and words[0] in command.commands:
            command = command.commands[words.pop(0)]
        assert not hasattr(command, "commands") or not words or words[0].startswith("-"), f"{page.name}: {words}"
        known = {name for parameter in command.params for name in parameter.opts + parameter.secondary_opts}
        used = {word.split("=")[0] for word in words if re.match(r"--[a-z]", word)}
        assert used <= known | {"--help"}, f"{page.name}: {used - known}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text()):
        if not re.match(r"[a-z]+:", target):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_make_targets_of_the_readme_exist():
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"^make (\w+)", (ROOT / "README.md").read_text(), flags=re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE)
