"""From votes to certificates: which kinds a design allows, computed together and written as one table."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from holdfast.certification import Certificate, certify_deployed, certify_ideal, certify_secret
from holdfast.ensemble import Votes
from holdfast.files import write_atomically
from holdfast.types import ConfigError

KINDS = ("deployed", "secret", "ideal")


def kinds_for(votes: Votes, kinds: Sequence[str] | None) -> tuple[str, ...]:
    """The kinds asked for, in fixed order; one whose proof does not cover the design is refused with the reason."""
    allowed = votes.design.certificates
    if kinds is None:
        return tuple(kind for kind in KINDS if kind in allowed)
    for kind in kinds:
        if kind not in KINDS:
            raise ConfigError(f"kind {kind!r} is not one of {', '.join(KINDS)}")
        if kind not in allowed:
            raise ConfigError(
                f"kind {kind!r} does not hold for votes of a {votes.design.kind} design; it allows {', '.join(allowed)}"
            )
    return tuple(kind for kind in KINDS if kind in kinds)


def certify_votes(
    votes: Votes,
    *,
    alpha: float,
    kinds: Sequence[str] | None = None,
    bound: str = "degree",
    method: str = "auto",
) -> list[Certificate]:
    """Every certificate that the design of the votes allows, strongest promise first.

    Args:
        votes: the votes `[N, T]` with their design.
        alpha: failure probability of `secret` (once for all inputs) and `ideal` (shared by all inputs).
        kinds: which kinds; None takes all that the design allows.
        bound: bound of `deployed`: "degree", "lp" or "exact".
        method: confidence method of `ideal`.
    """
    design, n_labels = votes.design, votes.n_labels
    if not 0 < alpha < 1:
        raise ConfigError(f"alpha = {alpha} must be inside (0, 1), for example 0.001")
    made = []
    for kind in kinds_for(votes, kinds):
        if kind == "deployed":
            made.append(certify_deployed(votes.votes, design.membership, n_labels, bound=bound))
        elif kind == "secret":
            n = design.n if design.kind == "random" else None
            made.append(certify_secret(votes.votes, design.group_sizes, design.repeats, n_labels, alpha=alpha, n=n))
        else:
            exact = design.kind == "exhaustive"
            made.append(
                certify_ideal(votes.counts(), n=design.n, k=design.k, alpha=alpha, method=method, exhaustive=exact)
            )
    return made


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
