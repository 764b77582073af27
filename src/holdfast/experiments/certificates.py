"""From votes to certificates: which kinds a design allows, computed together and written as one table."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from holdfast.certification import METHODS, Certificate, certify_deployed, certify_ideal, certify_secret
from holdfast.certification.selection import POISONINGS
from holdfast.ensemble import Design, Votes
from holdfast.files import write_atomically
from holdfast.types import ConfigError

KINDS = ("deployed", "secret", "ideal", "data")
CLIENTS, EXAMPLES = "clients", "training examples"
"""What a design selects, and so what m counts."""
PERSPECTIVES = ("clean", "observed")
SCHEMES = {"random": "without", "exhaustive": "without", "replacement": "with", "binomial": "binomial"}
"""The selection scheme behind each design whose models are independent draws (or all there are)."""


def unit_of(votes: Votes) -> str:
    """What the design of these votes selects."""
    return str(votes.facts.get("unit", CLIENTS))


def kinds_for(design: Design, unit: str, kinds: Sequence[str] | None = None, poisoning: str = "P3") -> tuple[str, ...]:
    """The kinds asked for, in fixed order; one whose proof does not cover design or poisoning is refused with why."""
    if poisoning not in POISONINGS:
        raise ConfigError(f"poisoning {poisoning!r} is not one of {', '.join(POISONINGS)}")
    ideal = "data" if unit == EXAMPLES else "ideal"
    covered = [ideal if kind == "ideal" else kind for kind in design.certificates]
    allowed = [kind for kind in covered if poisoning == "P3" or kind == ideal]
    for kind in kinds or ():
        if kind not in KINDS:
            raise ConfigError(f"kind {kind!r} is not one of {', '.join(KINDS)}")
        if kind not in covered:
            raise ConfigError(
                f"kind {kind!r} does not hold for votes of a {design.kind} design; it allows {', '.join(covered)}"
            )
        if kind not in allowed:
            raise ConfigError(f"kind {kind!r} covers modification (P3) only, not poisoning {poisoning}; leave it out")
    if not allowed:
        raise ConfigError(
            f"poisoning {poisoning} is not covered by a {design.kind} design, whose certificates "
            f"({', '.join(covered)}) hold for modification (P3) only; independent selections cover it"
        )
    return tuple(kind for kind in KINDS if kind in (kinds or allowed))


def certify_votes(
    votes: Votes,
    *,
    alpha: float,
    kinds: Sequence[str] | None = None,
    bound: str = "degree",
    method: str = "auto",
    poisoning: str = "P3",
    perspective: str = "clean",
) -> list[Certificate]:
    """Every certificate that the design of the votes allows, strongest promise first.

    Args:
        votes: the votes `[N, T]` with their design.
        alpha: failure probability of `secret` (once for all inputs), and of `ideal` and `data` (shared by all inputs).
        kinds: which kinds; None takes all that the design and the poisoning allow.
        bound: bound of `deployed`: "degree", "lp" or "exact".
        method: confidence method of `ideal` and `data`.
        poisoning: what the malicious may do: "P1" insert, "P2" delete, "P3" modify, "P4" to "P6" mixtures. The
            certificates of the trained models themselves cover P3 only: the others change who is selected.
        perspective: "clean": the votes are from before the attack; "observed": they may be from after it.
    """
    design, n_labels = votes.design, votes.n_labels
    if not 0 < alpha < 1:
        raise ConfigError(f"alpha = {alpha} must be inside (0, 1), for example 0.001")
    if method not in ("auto", *METHODS):
        raise ConfigError(f"method {method!r} is not one of {', '.join(('auto', *METHODS))}")
    made = []
    for kind in kinds_for(design, unit_of(votes), kinds, poisoning):
        if kind == "deployed":
            made.append(certify_deployed(votes.votes, design.membership, n_labels, bound=bound))
        elif kind == "secret":
            n = design.n if design.kind == "random" else None
            made.append(certify_secret(votes.votes, design.group_sizes, design.repeats, n_labels, alpha=alpha, n=n))
        else:
            if method == "auto" and votes.facts.get("outputs") == 2:
                method = "split"  # two-phase classifiers: whatever the label, only one other is possible
            settings: dict[str, str] = {"method": method, "poisoning": poisoning, "perspective": perspective}
            made.append(certify_counts(votes.counts(), design, alpha=alpha, kind=kind, **settings))
    return [_with_absences(_reword(certificate, unit_of(votes)), votes) for certificate in made]


def certify_counts(
    counts: NDArray[np.int64],
    design: Design,
    *,
    alpha: float,
    method: str = "auto",
    poisoning: str = "P3",
    perspective: str = "clean",
    kind: str = "data",
) -> Certificate:
    """The certificate of the vote over all selections, whichever scheme drew these."""
    return certify_ideal(
        counts,
        n=design.n,
        k=design.expected_size,
        alpha=alpha,
        method=method,
        scheme=SCHEMES[design.kind],
        poisoning=poisoning,
        perspective=perspective,
        exhaustive=design.kind == "exhaustive",
        kind=kind,
    )


_OF_EXAMPLES = (
    (
        "malicious clients control at most the models they are members of: every model depends on its own clients only,"
        " with its own seed and nothing computed across groups",
        "a poisoned example reaches at most the models whose selections hold it: every model depends on its own "
        "selection only, with its own seed and nothing computed across selections",
    ),
    (
        "the number of clients and the assignment are fixed: m of the n enrolled clients are malicious",
        "the number of examples and the selections are fixed: m of the n training examples are poisoned in place",
    ),
    (
        "the set of malicious clients was fixed without knowledge of the assignment; what they do may depend on "
        "everything",
        "which examples are poisoned was settled without knowledge of the selections; what is written into them may "
        "depend on everything",
    ),
    (
        "the assignment was drawn after enrollment from a secret seed that no client knows or can influence; drawing "
        "it again costs a new alpha",
        "the selections were drawn when all examples were in, from a secret seed that no contributor knows or can "
        "influence; drawing them again costs a new alpha",
    ),
    (
        "of the n enrolled clients, m are malicious; no client can enroll again under a new name after the groups are "
        "known",
        "at most m of the n training examples are poisoned; none changes its place once the selections are known",
    ),
)
"""The assumptions about clients, as they read about training examples."""


def _reword(certificate: Certificate, unit: str) -> Certificate:
    """The assumptions in terms of the unit."""
    if unit == CLIENTS:
        return certificate
    known = dict(_OF_EXAMPLES)
    return replace(certificate, assumptions=tuple(known.get(text, text) for text in certificate.assumptions))


def absences_told(votes: Votes) -> str | None:
    """What it means that updates of some models did not come, where real clients were asked (`FlowerTrainer`)."""
    absences = votes.facts.get("absences")
    if not absences:
        return None
    clients, models = (", ".join(map(str, absences[name])) for name in ("clients", "models"))
    return (
        f"absences as they happened: in {absences['rounds']} rounds updates of the clients {clients} did not come or "
        f"were refused, and the models {models} went on without them. The certificate compares with runs in which "
        "honest clients are absent from the same models in the same rounds; where attackers can cause or prevent an "
        "honest client's absence, for example by overloading the network, that client counts among the m"
    )


def _with_absences(certificate: Certificate, votes: Votes) -> Certificate:
    told = absences_told(votes)
    return certificate if told is None else replace(certificate, assumptions=(*certificate.assumptions, told))


def certificate_table(votes: Votes, certificates: Sequence[Certificate]) -> pd.DataFrame:
    """One row per input: label, prediction of the vote, and per kind the certified prediction, radius and margin."""
    counts = votes.counts()
    columns: dict[str, NDArray[Any]] = {"input": np.arange(len(counts))}
    if votes.labels is not None:
        columns["label"] = np.asarray(votes.labels)
    columns["vote"] = counts.argmax(axis=1)
    columns["votes"] = counts.max(axis=1)
    for certificate in certificates:
        columns[f"{certificate.kind}_prediction"] = certificate.prediction
        columns[f"{certificate.kind}_radius"] = certificate.radius
        if certificate.margin is not None:
            columns[f"{certificate.kind}_margin"] = np.asarray(certificate.margin, dtype=np.float64)
    return pd.DataFrame(columns)


def save_certificates(path: Path, votes: Votes, certificates: Sequence[Certificate]) -> None:
    """Write the table as Parquet, atomically, with kind, alpha, method and assumptions in the file's metadata."""
    table = pa.Table.from_pandas(certificate_table(votes, certificates), preserve_index=False)
    about = [
        {
            "kind": certificate.kind,
            "alpha": float(certificate.alpha),
            "method": certificate.method,
            "assumptions": list(certificate.assumptions),
            "votes_sha256": votes.source,
        }
        for certificate in certificates
    ]
    table = table.replace_schema_metadata({**(table.schema.metadata or {}), b"holdfast": json.dumps(about).encode()})
    content = io.BytesIO()
    pq.write_table(table, content)
    write_atomically(path, content.getvalue())
