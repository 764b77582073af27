"""`holdfast plan`: what each design could certify at best, and what it costs to train, before anything is trained."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rich.console import Console

from holdfast.ensemble.planner import Plan, plan
from holdfast.report import Table, show
from holdfast.types import ConfigError


@dataclass(frozen=True)
class PlanResult:
    """The planner's answer as a table."""

    table: Table
    hopeless: str | None = None
    """Why no certificate could survive even one malicious client, where that is so."""

    def to_json(self) -> dict[str, Any]:
        """The table with exact values."""
        return self.table.to_json()

    def print(self, console: Console) -> None:
        """The table."""
        show(self.table, console=console)

    def text(self) -> str:
        """The table as plain text."""
        return self.table.to_plain()


def plan_table(
    *,
    n: int,
    k: int,
    alpha: float,
    n_inputs: int,
    n_labels: int,
    n_models: int | None = None,
    design: str | None = None,
) -> PlanResult:
    """The largest m that each design and certificate could reach if all models agreed, and the training cost.

    Args:
        n: enrolled clients.
        k: clients per group.
        alpha: failure probability of `secret` and `ideal`.
        n_inputs: inputs certified together.
        n_labels: number of labels.
        n_models: N; None lets every design take what it needs.
        design: only this design; None takes all that n, k and N allow.
    """
    if n < 1 or not 1 <= k <= n:
        raise ConfigError(f"k={k} must be between 1 and the n={n} clients there are")
    rows = plan(design, n, k, n_models, alpha, n_inputs, n_labels)
    cells = [(r.design, r.certificate, str(r.n_models), str(r.pairs), "never" if r.m < 0 else str(r.m)) for r in rows]
    values = [(r.design, r.certificate, r.n_models, r.pairs, r.m) for r in rows]
    notes = [
        f"m = malicious clients, of {n:,}; k = {k}, {n_inputs:,} inputs, alpha = {alpha:g}; ties go to the smaller "
        "label, so inputs that get the smallest label may reach one more"
    ]
    hopeless = [_hopeless(r, n, k, alpha, n_inputs, n_labels) for r in rows if r.m < 1]
    notes += hopeless
    columns = ("design", "certificate", "models", "client trainings", "largest m")
    title = "Before training: the most malicious clients each design could survive, if all models agreed"
    table = Table(title, columns, tuple(cells), tuple(values), tuple(notes), left=2)
    return PlanResult(table, hopeless[0] if len(hopeless) == len(rows) else None)


def _hopeless(row: Plan, n: int, k: int, alpha: float, n_inputs: int, n_labels: int) -> str:
    """Why a design cannot certify even one malicious client, and how many models would."""
    head = f"{row.design}, {row.certificate}: N = {row.n_models} at alpha = {alpha:g} and {n_inputs:,} inputs"
    text = f"{head} can never certify {'anything' if row.m < 0 else 'a malicious client'}"
    if row.models_needed is None:
        return f"{text}, nor can any other N; choose a smaller k"
    text = f"{text}; {row.models_needed} models are needed"
    if row.certificate != "ideal" or row.design != "random":
        return text
    published = plan(row.design, n, k, row.n_models, alpha, n_inputs, n_labels, method="as-published-ensemble")
    needed = next(other.models_needed for other in published if other.certificate == "ideal")
    return f"{text} ({needed} models are needed with the method as published)"
