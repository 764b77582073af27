"""`holdfast data`: lists, fetches and shows, as text and as JSON, without a traceback."""

import json

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from holdfast.cli import data as data_command
from holdfast.data import DATASETS, load, partition
from holdfast.types import ConfigError, DataError


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.setenv("HOLDFAST_DATA", str(tmp_path / "cache"))
    app = typer.Typer()
    data_command.register(app)
    app.command("other")(lambda: None)

    def call(*arguments):
        return CliRunner().invoke(app, ["data", *map(str, arguments)], catch_exceptions=True)

    return call


def test_the_list_names_every_data_set_and_the_cache(run, tmp_path):
    listing = run()
    assert listing.exit_code == 0
    assert all(name in listing.output for name in DATASETS)
    assert str(tmp_path / "cache") in listing.output
    rows = {row["name"]: row for row in json.loads(run("--json").output)["data_sets"]}
    assert set(rows) == set(DATASETS)
    assert rows["digits"]["ready"]
    assert rows["mnist"] | {"folder": str(tmp_path / "cache" / "mnist"), "ready": False} == rows["mnist"]


def test_show_counts_what_the_library_counts(run):
    digits = load("digits")
    arguments = ("show", "digits", "--partition", "label-skew", "--clients", 30, "--skew", 0.9, "--seed", 4)
    facts = json.loads(run(*arguments, "--json").output)
    expected = partition("label-skew", digits.y_train, n=30, seed=4, q=0.9)
    assert facts["clients"]["rows"] == expected.sizes.tolist()
    assert facts["clients"]["labels"] == expected.label_counts(digits.y_train).tolist()
    assert facts["fingerprint"] == digits.fingerprint()
    text = run(*arguments).output
    assert "30 clients, rows per client" in text
    assert "1,352 training and 445 test rows of 1 x 8 x 8" in text


def test_the_histogram_counts_every_client_once():
    for sizes in ([5], [1, 1, 1], list(range(1, 200)), [1, 10_000]):
        bins = data_command._histogram(sizes)
        assert sum(count for _, _, count, _ in bins) == len(sizes)
        assert bins[0][0] == min(sizes)
        assert bins[-1][1] == max(sizes)
        assert len(bins) <= 12


def test_show_of_a_users_file_names_its_users(run, tmp_path):
    np.savez(tmp_path / "d.npz", x=np.eye(24), y=np.arange(24) % 2, client=np.repeat(["ann", "bob"], 12))
    text = run("show", tmp_path / "d.npz", "--partition", "user").output
    assert "ann" in text
    assert "bob" in text
    assert "rows of 2 users" in text


@pytest.mark.parametrize(
    ("arguments", "kind", "sentence"),
    [
        (("show", "digits", "--partition", "label-skew"), ConfigError, "n, the number of clients, is missing"),
        (("show", "digits", "--partition", "iid", "--clients", 5000), DataError, "n is 5000 clients"),
        (("show", "digits", "--partition", "iid", "--clients", 5, "--skew", 0.5), ConfigError, "no parameter 'q'"),
        (("show", "minst"), ConfigError, "neither a data set"),
        (("fetch", "minst"), ConfigError, "unknown data set"),
        (("fetch", "loan"), DataError, "without a login"),
    ],
)
def test_mistakes_are_one_sentence(run, arguments, kind, sentence):
    result = run(*arguments)
    assert isinstance(result.exception, kind)
    assert sentence in str(result.exception)


def test_fetch_of_what_needs_none_or_is_there_says_so(run):
    assert "needs no download" in run("fetch", "digits").output
