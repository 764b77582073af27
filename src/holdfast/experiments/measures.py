"""What is measured after a round: accuracy, by label too, how often the attack succeeds, and who had influence."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from holdfast.data import Dataset
from holdfast.experiments.threat import Threat
from holdfast.experiments.verdict import ParticipantVerdict, participant_verdict
from holdfast.training import Trainer
from holdfast.types import Aggregate

Labeled = tuple[NDArray[Any], NDArray[np.int64]]


@dataclass(frozen=True)
class RoundRecord:
    """One evaluated round; shares are in [0, 1], NaN where there is nothing to divide by.

    Attributes:
        round: rounds done, from 1.
        accuracy: share of test inputs with the correct label.
        by_label: the same per label, `L` numbers.
        training_accuracy: share of the honest clients' training rows with the correct label; None if not asked for.
        success: share of the goal's inputs that got the label the attackers want; None without a goal.
        target_error: share of the goal's inputs that did not get their true label (targeted poisoning only).
        target_confidence: mean probability of the wanted label on them (targeted poisoning only).
        true_confidence: mean probability of the true label on them (targeted poisoning only).
        malicious_influence: share of the result that malicious clients had, where the rule says; None elsewhere.
        honest_influence: that of the honest ones. Clipping rules give both less than 1.
        malicious_in_round: malicious clients that took part.
        replaced_malicious: malicious rows that the screen replaced.
        replaced_honest: honest rows that it replaced.
        verdict: what a rule with sanitizing factors thinks of every participant; None of other rules.
    """

    round: int
    accuracy: float
    by_label: tuple[float, ...]
    training_accuracy: float | None = None
    success: float | None = None
    target_error: float | None = None
    target_confidence: float | None = None
    true_confidence: float | None = None
    malicious_influence: float | None = None
    honest_influence: float | None = None
    malicious_in_round: int = 0
    replaced_malicious: int = 0
    replaced_honest: int = 0
    verdict: ParticipantVerdict | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain numbers; NaN as null; a verdict and training accuracy only where there are any."""
        entries = {key: _plain(value) for key, value in asdict(self).items() if key != "verdict"}
        if self.training_accuracy is None:
            del entries["training_accuracy"]
        return entries if self.verdict is None else {**entries, "verdict": self.verdict.to_json()}

    @classmethod
    def from_json(cls, entries: Mapping[str, Any]) -> RoundRecord:
        """A record as `to_json` wrote it."""
        by_label = tuple(float("nan") if value is None else value for value in entries["by_label"])
        verdict = None if entries.get("verdict") is None else ParticipantVerdict.from_json(entries["verdict"])
        return cls(**{**entries, "by_label": by_label, "verdict": verdict})


def measure(
    round_number: int,
    params: NDArray[np.float32],
    trainer: Trainer,
    dataset: Dataset,
    threat: Threat,
    result: Aggregate | None,
    malicious: NDArray[np.bool_],
    trained: Labeled | None = None,
) -> RoundRecord:
    """Evaluate a global model.

    Args:
        round_number: rounds done.
        params: the global model `[P]`.
        trainer: predicts.
        dataset: has the test rows.
        threat: which test rows accuracy is measured on, and the attackers' goal.
        result: what the rule gave this round, or None if nobody sent anything.
        malicious: `[k]`, which rows of the round were malicious.
        trained: inputs and labels to measure training accuracy on; None measures none.
    """
    truth = dataset.y_test[threat.kept]
    predicted = trainer.predict(params[None], dataset.x_test[threat.kept])[0]
    facts: dict[str, Any] = {}
    if trained is not None and len(trained[1]):
        facts["training_accuracy"] = float((trainer.predict(params[None], trained[0])[0] == trained[1]).mean())
    if threat.goal is not None and len(threat.goal.inputs):
        goal = threat.goal
        found = trainer.predict(params[None], goal.inputs)[0]
        facts["success"] = float((found == goal.wanted).mean())
        if goal.confident:
            with torch.inference_mode():
                scores = trainer.to_module(params)(torch.from_numpy(np.asarray(goal.inputs, dtype=np.float32)))
                shares = torch.softmax(scores.double(), dim=1).numpy()
            rows = np.arange(len(goal.inputs))
            facts["target_error"] = float((found != goal.truth).mean())
            facts["target_confidence"] = float(shares[rows, goal.wanted].mean())
            facts["true_confidence"] = float(shares[rows, goal.truth].mean())
    return RoundRecord(
        round=round_number,
        accuracy=float((predicted == truth).mean()),
        by_label=by_label(predicted == truth, truth, dataset.n_labels),
        **facts,
        **influence(result, malicious),
        verdict=participant_verdict(result),
    )


def by_label(correct: NDArray[np.bool_], truth: NDArray[np.int64], n_labels: int) -> tuple[float, ...]:
    """Accuracy per label; NaN for a label without test inputs.

    Example:
        >>> by_label(np.array([True, False, True]), np.array([0, 0, 1]), 2)
        (0.5, 1.0)
    """
    hits, sizes = (np.bincount(rows, minlength=n_labels) for rows in (truth[correct], truth))
    return tuple(float(h) / float(s) if s else float("nan") for h, s in zip(hits, sizes, strict=True))


def influence(result: Aggregate | None, malicious: NDArray[np.bool_]) -> dict[str, Any]:
    """Who had how much say in a round, and whose rows were replaced."""
    if result is None:
        return {}
    replaced = np.asarray(result.replaced)
    facts: dict[str, Any] = {
        "malicious_in_round": int(malicious.sum()),
        "replaced_malicious": int(replaced[malicious].sum()),
        "replaced_honest": int(replaced[~malicious].sum()),
    }
    if result.client_weights is not None:
        shares = np.asarray(result.client_weights, dtype=np.float64)
        facts["malicious_influence"] = float(shares[malicious].sum())
        facts["honest_influence"] = float(shares[~malicious].sum())
    return facts


def _plain(value: Any) -> Any:
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and np.isnan(value) else value
