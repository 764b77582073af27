"""The paper's experiments run end to end at smoke scale, and what follows from formulas alone is exact at any scale."""

import json

import numpy as np
import pytest

from holdfast.experiments.paper_ensemble import scale
from holdfast.experiments.reproduce_ensemble import reproduce_ensemble
from holdfast.types import ConfigError


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    out = tmp_path_factory.mktemp("reproduction")
    return reproduce_ensemble(out, scale_name="smoke", seed="test")


def test_every_figure_of_the_paper_is_drawn(found):
    drawn = {path.name for path in found.figures}
    names = ("2a", "2b", "3a", "3b", "4a", "4b", "5a", "5b", "6")
    assert drawn == {f"figure-{name}.{kind}" for name in names for kind in ("png", "svg")}
    assert all(path.stat().st_size > 1000 for path in found.figures)


def test_combinatorial_anchors_are_exact(found):
    rows = {row["claim"]: row for row in found.tables[0].to_json()["rows"]}
    for claim, first_zero in (("MNIST, first m", 61), ("HAR, first m", 9)):
        row = next(row for name, row in rows.items() if claim in name)
        assert (row["published"], row["ours"], row["verdict"]) == (first_zero, first_zero, "agrees")
    assert {row["verdict"] for row in rows.values()} == {"agrees", "not measured"}


def test_designs_are_compared_and_no_kind_exceeds_its_own_accuracy_at_zero(found):
    rows = found.tables[1].to_json()["rows"]
    assert {row["certificate"] for row in rows} == {"ideal (as published)", "ideal (rigorous)", "deployed", "secret"}
    for row in rows:
        curve = [value for name, value in row.items() if name.startswith("m=")]
        assert all(np.diff(curve) <= 0)
        assert 0 <= curve[0] <= 1
    deployed = {row["design"]: row for row in rows if row["certificate"] == "deployed"}
    assert max(row["m=1"] for row in deployed.values()) > 0.4


def test_lines_of_the_figures_are_tables_too(found):
    tables = {table.title.split(":")[0]: table.to_json()["rows"] for table in found.tables}
    images, activity = tables["Figures 3 to 6, images"], tables["Figures 3 to 6, activity"]
    lines = [row["certificate"] for row in images + activity]
    assert {line.split(":")[0] for line in lines} == {
        f"Figure {name}" for name in ("3a", "3b", "4a", "4b", "5a", "5b", "6")
    }
    assert [line for line in lines if "Figure 3a" in line or "Figure 6" in line] == [
        "Figure 3a: k = 2", "Figure 3a: k = 4", "Figure 6: q = 0.5", "Figure 6: q = 0.9"
    ]  # fmt: skip
    assert [row["alpha"] for row in images if "Figure 5a" in row["certificate"]] == [0.0001, 0.001, 0.01, 0.1]
    shares = [row["m=0"] for row in images if "Figure 5a" in row["certificate"]]
    assert shares == sorted(shares)  # the more may fail, the more is certified


def test_a_run_is_trained_even_where_no_figure_can_be_drawn_of_it_alone(tmp_path):
    found = reproduce_ensemble(tmp_path, seed="test", only=("images-k-2",))
    assert (tmp_path / "runs" / "images-k-2" / "votes.npz").exists()
    assert found.figures == ()


def test_activity_is_certified_up_to_the_first_m_where_nothing_is_left(found):
    rows = found.tables[-1].to_json()["rows"]
    assert [row["certificate"].split()[0] for row in rows] == ["ideal", "deployed"] * 2
    curves = np.array([[row[name] for name in row if name.startswith("m=")] for row in rows])
    assert (np.diff(curves) <= 0).all()
    assert (curves[:, -1] == 0).all()
    assert (curves[:, 1] > 0).any()


def test_a_second_call_takes_the_runs_that_are_there(found, monkeypatch):
    def no_training(*_arguments, **_options):
        raise AssertionError("trained again")

    monkeypatch.setattr("holdfast.experiments.certify.train_ensemble", no_training)
    again = reproduce_ensemble(found.out, scale_name="smoke", seed="test")
    assert again.to_json() == found.to_json() == json.loads((found.out / "reproduction-smoke.json").read_text())


def test_unknown_scales_and_runs_are_named(tmp_path):
    with pytest.raises(ConfigError, match="galactic"):
        scale("galactic")
    with pytest.raises(ConfigError, match="images-k-99"):
        reproduce_ensemble(tmp_path, only=("images-k-99",))


def test_single_steps_train_as_far_as_the_preset():
    arms = scale("cpu").arms()
    single, preset = arms["images-q-0.9-single-steps"], arms["images-q-0.9"]
    assert (single.skew, single.models, single.fedavg().local_steps) == (0.9, 500, 1)
    assert single.fedavg().rounds == preset.fedavg().rounds * preset.fedavg().local_steps
    assert single.fedavg().lr == preset.fedavg().lr


def test_the_paper_scale_has_the_papers_settings():
    paper = scale("paper")
    images, fedavg = paper.images, paper.images.fedavg()
    assert (images.clients, images.k, images.skew, paper.models) == (1000, 10, 0.5, 500)
    assert (fedavg.rounds, fedavg.local_steps, fedavg.batch_size, fedavg.lr) == (3000, 5, 32, 0.001)
    assert paper.activity.fedavg().rounds == 5000
