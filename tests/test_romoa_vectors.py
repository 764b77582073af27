"""Romoa against independently computed values, step by step."""

import json
import math

import numpy as np
import pytest

from holdfast.aggregation.romoa import Romoa, majority_window
from holdfast.aggregation.romoa.factors import Scoring, clip_factors, scores
from holdfast.aggregation.romoa.measures import element_cosine, gathered, lengths_of, measure, select
from holdfast.aggregation.stacking import stack

from .conftest import shared

TIGHT = {"rtol": 1e-9, "atol": 1e-12}
NAMES = [
    "default",
    "paper_momentum",
    "both_pearsons",
    "raw10",
    "literal",
    "zero_update_participant0",
    "all_identical",
    "all_zero_updates",
]


@pytest.fixture(scope="module")
def vectors():
    return json.loads(shared("vectors/romoa.json").read_text())


def rule_of(config):
    given = {**config, "clip": math.inf if config["clip"] is None else config["clip"]}
    return Romoa(**given, min_layer=1)


def models_of(vectors, name, step):
    case = vectors["cases"][name]
    if "models" in case:
        return np.array(case["models"])
    if name == "all_zero_updates":
        return np.tile(vectors["base"], (4, 1))
    return np.array(vectors[f"models_step{step}"])


def layout_of(vectors):
    return [slice(*edges) for edges in vectors["layers"]]


@pytest.mark.parametrize("name", NAMES)
def test_factors_and_aggregate(vectors, name):
    case, base = vectors["cases"][name], np.array(vectors["base"])
    rule, state = rule_of(case["config"]), None
    steps = [key for key in ("step1", "step2") if key in case]
    for step in steps:
        models = models_of(vectors, name, step[-1])
        result = rule.aggregate(models, state=state, layout=layout_of(vectors), reference=base)
        watched = rule.lookahead(models, state=state, layout=layout_of(vectors), reference=base)
        state, expected = result.state, case[step]
        factors = np.array([state.factors(client) for client in range(4)])
        np.testing.assert_allclose(factors, expected["F"], **TIGHT)
        np.testing.assert_allclose([watched.factors(client) for client in range(4)], expected["F"], **TIGHT)
        if "clip_factor" in expected:
            np.testing.assert_allclose(result.diagnostics["clip_factor"], expected["clip_factor"], **TIGHT)
        if "sync_aggregate" in expected:
            np.testing.assert_allclose(result.value, expected["sync_aggregate"], **TIGHT)
        if "sync_weights" in expected:
            np.testing.assert_allclose(
                result.client_weights, np.mean(expected["sync_weights"], axis=1), rtol=1e-9, atol=1e-12
            )


@pytest.mark.parametrize("name", NAMES[:5])
@pytest.mark.parametrize("step", ["step1", "step2"])
def test_measures(vectors, name, step):
    case, base = vectors["cases"][name], np.array(vectors["base"])
    expected, config = case[step], case["config"]
    rows, usable = stack(models_of(vectors, name, step[-1])).federations[0], np.ones(4, bool)
    bounds = np.array([0, *(stop for _, stop in vectors["layers"])])
    moments = measure(rows, usable, base, bounds)
    found = {
        "L_cosine": moments.cosine(),
        "pearson_standard": moments.pearson(),
        "pearson_printed": moments.printed_pearson(),
    }
    for key, value in expected["measures"].items():
        if key in found:
            np.testing.assert_allclose(found[key], value, **TIGHT)
            for layer, window in enumerate(expected["layer"][key]):
                column = found[key][:, layer]
                center, half = majority_window(column)
                np.testing.assert_allclose([center, half], [window["centroid"], window["half_width"]], **TIGHT)
                f = scores(column, sided=config["sided"], units=config["units"], min_window=config["min_window"])
                np.testing.assert_allclose(f, window["f"], rtol=1e-9, atol=1e-9)
    selected = select(rows, usable, expected["k"])
    assert selected.tolist() == expected["selected"]
    ((_, updates),) = gathered(rows, base, selected)
    lengths = np.sqrt(lengths_of(updates, usable))
    cosine = element_cosine(updates, usable, lengths[:-1] * lengths[-1])
    np.testing.assert_allclose(cosine, expected["S_cosine"], **TIGHT)
    scoring = Scoring(*(config[key] for key in ("sharpness", "sided", "pearson", "units", "min_window")))
    for spot, window in enumerate(expected["element_S"]):
        np.testing.assert_allclose(scoring.elements(cosine)[:, spot], window["f"], rtol=1e-9, atol=1e-12)
    norms = np.linalg.norm(models_of(vectors, name, step[-1]) - base, axis=1)
    np.testing.assert_allclose(moments.norms(), norms, **TIGHT)
    if config["clip"]:
        np.testing.assert_allclose(clip_factors(norms, config["clip"]), expected["clip_factor"], **TIGHT)


def test_majority_window(vectors):
    for case in vectors["majority_window"]:
        assert majority_window(np.array(case["values"]))[0] == pytest.approx(case["centroid"], abs=1e-12)
