"""`holdfast certify-data` as a user runs it: stages, resume, recertify, prior knowledge, and every bad input."""

import json
import sys

import numpy as np
import pandas as pd
import pytest

from holdfast.cli import main
from holdfast.ensemble import Votes
from holdfast.experiments.certify import certify_run
from holdfast.experiments.examples import ExamplesConfig, load_examples
from holdfast.experiments.recertify import recertify_run
from holdfast.report.wording import headline
from holdfast.training.weights import read_weights
from holdfast.types import DataError

SMALL = {"classes": ("1", "7", "3"), "models": 40, "steps": 20, "long_steps": 50, "expand": 64, "test_inputs": 60}


@pytest.fixture
def here(monkeypatch, capsys):
    def call(*arguments: object):
        monkeypatch.setattr(sys, "argv", ["holdfast", *map(str, arguments)])
        capsys.readouterr()
        try:
            main()
            code = 0
        except SystemExit as end:
            code = int(end.code or 0)
        return code, *capsys.readouterr()

    return call


def run(out, seed="a seed for tests only", **options):
    alpha = options.pop("alpha", 0.05)
    job = {name: options.pop(name) for name in ("poisoning", "resume") if name in options}
    return certify_run(ExamplesConfig(**SMALL | options), out, alpha=alpha, seed=seed, threads=1, **job)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    out = tmp_path_factory.mktemp("certify-data") / "run"
    return out, run(out, size=12)


def test_the_run_holds_every_stage(finished):
    out, result = finished
    names = {path.name for path in out.iterdir()}
    assert {"run.json", "secret.json", "votes.npz", "certificates.parquet", "report.html", "figures", "models"} <= names
    assert [c.kind for c in result.certificates] == ["deployed", "secret", "data"]
    assert "training examples poisoned" in headline(result.content)
    page = (out / "report.html").read_text()
    assert "single model on all examples" in page
    assert "FedAvg" not in page
    table = pd.read_parquet(out / "certificates.parquet")
    assert {"label", "vote", "deployed_radius", "secret_radius", "data_radius", "data_margin"} <= set(table.columns)
    told = " ".join(text for c in result.certificates for text in c.assumptions)
    assert not any(word in told for word in ("client", "enrol", "group", "assignment"))  # words of the other unit
    assert "40 random selections of 12" in page
    assert "examples are counted, not attackers" in page
    assert "many names" not in page
    manifest = json.loads((out / "run.json").read_text())
    assert manifest["job"] == "certify-data"


def test_models_are_the_same_alone_and_after_an_interruption(finished, tmp_path):
    _, result = finished
    again = run(tmp_path / "again", size=12)
    np.testing.assert_array_equal(again.votes.votes, result.votes.votes)
    (tmp_path / "again" / "votes.npz").unlink()
    manifest = json.loads((tmp_path / "again" / "run.json").read_text())
    del manifest["votes_sha256"]
    (tmp_path / "again" / "run.json").write_text(json.dumps(manifest))
    for model in (0, 17):
        (tmp_path / "again" / "log" / f"model-{model:07d}.votes").unlink()
    resumed = run(tmp_path / "again", seed=None, resume=True, models=99)  # options not given now come from the run
    np.testing.assert_array_equal(resumed.votes.votes, result.votes.votes)


def test_recertify_answers_for_every_poisoning_model(finished):
    out, _ = finished
    radii = {
        kind: recertify_run(out, alpha=0.05, poisoning=kind, kinds=["data"]).certificates[0].radius
        for kind in ("P1", "P2", "P3", "P4", "P5", "P6")
    }
    for same in ("P4", "P5", "P6"):
        np.testing.assert_array_equal(radii[same], radii["P3"])
    assert (radii["P2"] >= radii["P1"]).all()
    assert (radii["P1"] >= radii["P3"]).all()
    assert (radii["P2"] > radii["P3"]).any()
    seen = recertify_run(out, alpha=0.05, poisoning="P1", perspective="observed").certificates
    assert [c.kind for c in seen] == ["data"]  # the others cover modification only
    np.testing.assert_array_equal(seen[0].radius, radii["P2"])
    assert any("may be from under attack" in text for text in seen[0].assumptions)


@pytest.mark.parametrize(
    ("options", "kinds"),
    [
        ({"scheme": "with", "size": 10}, ["deployed", "data"]),
        ({"scheme": "binomial", "p": 0.02}, ["deployed", "data"]),
        ({"scheme": "disjoint", "size": 20, "models": None}, ["deployed", "secret"]),
        ({"scheme": "partitions", "size": 20, "models": 40}, ["deployed", "secret"]),
    ],
)
def test_every_scheme_trains_votes_and_certifies(tmp_path, options, kinds):
    result = run(tmp_path / "run", **options)
    assert [c.kind for c in result.certificates] == kinds
    assert max(c.max_radius for c in result.certificates) >= 1
    assert Votes.load(tmp_path / "run" / "votes.npz").design.p == result.votes.design.p


def test_trusted_examples_join_every_selection_and_their_own_baseline_is_shown(tmp_path):
    result = run(tmp_path / "run", size=5, trusted="0-29")
    assert result.votes.design.n == len(load_examples(ExamplesConfig(**SMALL)).untrusted) - 30
    alone = result.content.trusted_only_accuracy
    assert alone is not None
    assert f"{100 * alone:.1f}" in (tmp_path / "run" / "report.html").read_text()
    assert any("trusted" in text for text in result.content.not_covered)


def test_two_phases_vote_in_final_labels(tmp_path):
    result = run(tmp_path / "run", size=5, trusted_classes=("1", "3"), models=60)
    votes = result.votes
    study = load_examples(ExamplesConfig(**SMALL, trusted_classes=("1", "3")))
    poisoned = study.dataset.label_names.index("7")
    assert votes.design.n == int((study.dataset.y_train == poisoned).sum())
    # For one input, every classifier says the poisoned class or the one label of the shared second phase.
    for column in votes.votes.T:
        assert len(set(column.tolist()) - {poisoned}) <= 1
    (certificate,) = (c for c in result.certificates if c.kind == "data")
    assert certificate.method.startswith("split")  # two outputs: the rival's share is exactly the rest
    assert result.content.trusted_only_accuracy is not None
    assert certificate.max_radius >= 1


def test_a_single_trusted_class_needs_no_telling_apart(tmp_path):
    result = run(tmp_path / "run", size=5, trusted_classes=("1",))
    assert result.votes.votes.max() <= 2
    assert result.content.trusted_only_accuracy is not None


def test_trusted_data_from_a_file(tmp_path):
    rng = np.random.default_rng(1)
    x = rng.random((40, 1, 8, 8), dtype=np.float32)
    np.savez(tmp_path / "mine.npz", x=x, y=np.arange(40) % 2)
    np.savez(tmp_path / "ours.npz", x=rng.random((60, 1, 8, 8), dtype=np.float32), y=np.arange(60) % 2)
    study = load_examples(ExamplesConfig(data=str(tmp_path / "ours.npz"), trusted_data=str(tmp_path / "mine.npz")))
    assert len(study.trusted) == 40
    assert study.case == 2
    assert study.n == len(study.dataset.y_train) - 40
    again = ExamplesConfig(data=str(tmp_path / "ours.npz"), trusted_data=str(tmp_path / "ours.npz"))
    with pytest.raises(DataError, match="also in the untrusted part"):
        load_examples(again)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--size", "5000"), "size = 5000 examples per selection are more than the n = 1352"),
        (("--size", "1350", "--trusted", "0-99"), "n = 1252 that are not trusted"),
        (("--size", "0"), "size = 0"),
        (("--scheme", "binomial", "--p", "0"), "p = 0.0 must lie strictly between 0 and 1"),
        (("--scheme", "binomial", "--p", "1"), "p = 1.0 must lie strictly between 0 and 1"),
        (("--scheme", "binomial", "--p", "nan"), "p = nan must lie strictly between 0 and 1"),
        (("--scheme", "binomial"), "needs p, a constant fixed before the data were seen"),
        (("--scheme", "binomial", "--p", "0.1", "--size", "9"), "size = 9 does not go with scheme binomial"),
        (("--p", "0.1"), "p = 0.1 is for scheme binomial only"),
        (("--scheme", "bagging"), "scheme 'bagging' is not one of"),
        (("--models", "5"), "models = 5 can never certify a poisoned example"),
        (("--scheme", "disjoint", "--size", "1000"), "can never certify even one poisoned example"),
        (("--classes", "1,12"), "classes names the class '12'"),
        (("--classes", "1"), "at least two must be told apart"),
        (("--trusted-classes", "3,eleven"), "trusted_classes names the class 'eleven'"),
        (("--trusted-classes", "0,1,2,3,4,5,6,7,8,9"), "trusted_classes names every class"),
        (("--trusted-classes", "1", "--trusted", "0"), "vouch in one way"),
        (("--trusted", "0-99999"), "trusted names row 99999"),
        (("--trusted", "5-3"), "must list training rows such as"),
        (("--trusted", "0-1351"), "every training example is trusted"),
        (("--poisoning", "P9"), "poisoning 'P9' is not one of"),
        (("--poisoning", "P1", "--scheme", "disjoint"), "hold for modification (P3) only"),
        (("--perspective", "both"), "perspective = 'both'"),
        (("--steps", "0"), "steps must be a whole number"),
        (("--alpha", "0"), "alpha = 0.0"),
        (("--model", "lenet"), "sides of at least 12"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(here, tmp_path, arguments, words):
    code, out, err = here("certify-data", *arguments, "--out", tmp_path / "run")
    assert code == 2, err
    assert words in err
    assert err.startswith("error: ")
    assert len(err.strip().splitlines()) == 1
    assert "Traceback" not in err + out
    assert not (tmp_path / "run").exists()


def test_trusted_examples_that_are_also_untrusted_are_refused(here, tmp_path):
    rng = np.random.default_rng(1)
    x, y = rng.random((60, 4), dtype=np.float32), np.arange(60) % 2
    x[55], y[55] = x[3], y[3]  # a copy of row 3 of the training rows, whatever the split does with it
    both = {"x": x[:50], "y": y[:50], "x_test": x[50:55], "y_test": y[50:55]}
    np.savez(tmp_path / "ours.npz", **both)
    np.savez(tmp_path / "mine.npz", x=x[55:], y=y[55:], x_test=x[50:55], y_test=y[50:55])
    told = ("certify-data", "--data", tmp_path / "ours.npz", "--trusted-data", tmp_path / "mine.npz")
    code, out, err = here(*told, "--out", tmp_path / "run")
    assert code == 2, err
    assert "is also in the untrusted part, as row 3" in err
    assert len(err.strip().splitlines()) == 1
    assert "Traceback" not in err + out
    assert not (tmp_path / "run").exists()


def test_selections_of_one_example_train_vote_and_certify(tmp_path):
    # Every selection has a single class, or (p = 0.002) about half of them are empty: no NaN, honest certificates.
    for name, options in {"one": {"size": 1}, "none": {"scheme": "binomial", "p": 0.002}}.items():
        result = run(tmp_path / name, **options)
        assert result.votes.votes.max() <= 2
        for certificate in result.certificates:
            assert ((certificate.radius >= -1) & (certificate.radius <= result.votes.design.n)).all()
        weights = [read_weights(path)[0] for path in (tmp_path / name / "models").iterdir()]
        assert len(weights) == SMALL["models"]
        assert all(tensor.isfinite().all() for tensors in weights for tensor in tensors.values())


def test_resume_compares_what_is_given(here, finished):
    out, _ = finished
    code, _, err = here("certify-data", "--out", out)
    assert code == 2
    assert "already holds a run" in err
    code, _, err = here("certify-data", "--out", out, "--resume", "--size", "13")
    assert code == 2
    assert "--size is 13 now but 12" in err
    code, _, err = here("certify", "--out", out, "--resume")
    assert code == 2
    assert "holds a certify-data run" in err
