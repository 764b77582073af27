"""The votes of the trained models: the durable artifact that every certificate is computed from.

`Votes` is the finished table, one sealed file; whoever has it can check every certificate again without training
or data. `VoteLog` is the folder that fills up while models train, one small file per finished model, so that a run
killed at any moment goes on where it stopped.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from holdfast.certification.tally import check_votes, tally
from holdfast.ensemble.design import Design
from holdfast.ensemble.sealed import array_hash, read_sealed, write_sealed
from holdfast.files import write_atomically
from holdfast.types import ArtifactError, ConfigError

FORM = "holdfast votes 1"
LOG_HEAD = b"holdfast vote row 1\n"
UNKNOWN = -1
"""The label of an input whose true label is not known."""


def vote_type(n_labels: int) -> np.dtype[Any]:
    """The smallest unsigned integer type that holds labels 0..n_labels-1."""
    return np.dtype(np.uint8) if n_labels <= 256 else np.dtype(np.uint16) if n_labels <= 65536 else np.dtype(np.uint32)


@dataclass(frozen=True, eq=False)
class Votes:
    """What N models answered for T inputs, and which clients trained which model.

    Attributes:
        votes: `[N, T]` small unsigned integers, the label each model gave each input.
        design: who trained what.
        n_labels: L; votes lie in 0..L-1.
        labels: `[T]` int64 true labels, `UNKNOWN` (-1) where not known; None if none is.
        facts: anything JSON can hold about how the votes came about (data set, trainer, versions).

    Example:
        >>> from holdfast.ensemble import make_design
        >>> design = make_design("disjoint", n=6, k=2, seed=7)
        >>> votes = Votes(np.array([[0, 1], [0, 1], [2, 1]]), design, n_labels=3, labels=np.array([0, -1]))
        >>> votes.counts().tolist()
        [[2, 0, 1], [0, 3, 0]]
        >>> votes.labelled.tolist()
        [True, False]
    """

    votes: NDArray[np.unsignedinteger[Any]]
    design: Design
    n_labels: int
    labels: NDArray[np.int64] | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        votes = check_votes(self.votes, self.n_labels).astype(vote_type(self.n_labels))
        if len(votes) != self.design.n_models:
            raise ConfigError(f"votes has {len(votes)} rows, but the design has {self.design.n_models} models")
        votes.setflags(write=False)
        object.__setattr__(self, "votes", votes)
        if self.labels is not None:
            object.__setattr__(self, "labels", self._checked_labels())

    def _checked_labels(self) -> NDArray[np.int64]:
        labels = np.asarray(self.labels)
        if labels.shape != (self.n_inputs,) or not np.issubdtype(labels.dtype, np.integer):
            raise ConfigError(f"labels has shape {labels.shape}; needed is one integer per input, {self.n_inputs}")
        if labels.size and not UNKNOWN <= labels.min() <= labels.max() < self.n_labels:
            raise ConfigError(f"labels must lie in 0..{self.n_labels - 1}, or be {UNKNOWN} where unknown")
        labels = labels.astype(np.int64)
        labels.setflags(write=False)
        return labels

    @property
    def n_models(self) -> int:
        """N, the number of models."""
        return int(self.votes.shape[0])

    @property
    def n_inputs(self) -> int:
        """T, the number of inputs."""
        return int(self.votes.shape[1])

    @property
    def labelled(self) -> NDArray[np.bool_]:
        """`[T]` bool: the inputs whose true label is known."""
        return np.zeros(self.n_inputs, dtype=bool) if self.labels is None else self.labels != UNKNOWN

    def counts(self) -> NDArray[np.int64]:
        """`[T, L]` int64: how many models vote for each label."""
        return tally(self.votes, self.n_labels)

    @property
    def hashes(self) -> dict[str, str]:
        """SHA-256 of each part, as hex."""
        parts = {"votes": array_hash(self.votes), "design": self.design.fingerprint}
        return parts if self.labels is None else parts | {"labels": array_hash(self.labels)}

    @property
    def source(self) -> str:
        """One SHA-256 for all that a certificate is computed from: the votes and the design, not the labels."""
        return hashlib.sha256((self.hashes["votes"] + self.hashes["design"]).encode()).hexdigest()

    def prefix(self, repeats: int) -> Votes:
        """The votes of the design's first `repeats` draws (`Design.prefix`)."""
        design = self.design.prefix(repeats)
        return replace(self, votes=self.votes[: design.n_models], design=design)

    def save(self, path: str | Path) -> str:
        """Write everything but the secret seed as one sealed `.npz`; returns the file's seal (a SHA-256).

        Raises:
            ArtifactError: if the path already holds other results.
        """
        design = self.design
        facts = {
            "n_labels": self.n_labels,
            "facts": dict(self.facts),
            "design": {
                "kind": design.kind,
                "n": design.n,
                "k": design.k,
                "group_sizes": list(design.group_sizes),
                "repeats": design.repeats,
                "commitment": design.commitment,
                "secret": design.secret,
                "fingerprint": design.fingerprint,
                "p": None if design.p is None else str(design.p),
            },
        }
        arrays: dict[str, NDArray[Any]] = {"votes": self.votes, "membership": np.packbits(design.membership, axis=1)}
        if self.labels is not None:
            arrays["labels"] = self.labels
        return write_sealed(Path(path), FORM, facts, arrays)

    @classmethod
    def load(cls, path: str | Path) -> Votes:
        """Read votes saved by `save`.

        Raises:
            ArtifactError: if the file is missing, truncated, edited (naming the hash that differs) or foreign.
        """
        facts, arrays, _ = read_sealed(Path(path), FORM)
        told = facts["design"]
        membership = np.unpackbits(arrays["membership"], axis=1, count=told["n"]).astype(bool)
        design = Design(
            kind=told["kind"],
            membership=membership,
            k=told["k"],
            group_sizes=tuple(told["group_sizes"]),
            repeats=told["repeats"],
            commitment=told["commitment"],
            secret=told["secret"],
            p=Fraction(told["p"]) if told.get("p") else None,
        )
        if design.fingerprint != told["fingerprint"]:
            raise ArtifactError(f"{path} was edited: the SHA-256 of its design is not the one in its manifest")
        return cls(arrays["votes"], design, facts["n_labels"], arrays.get("labels"), facts["facts"])


@dataclass(frozen=True)
class VoteLog:
    """A folder that takes the votes of each model as soon as it is trained, safe against being killed.

    Attributes:
        folder: where the rows lie; made when the first one is added.
        n_inputs: T.
        n_labels: L.
        run: what the rows belong to (for example `design.fingerprint` plus a hash of the training settings); rows of
            another run are refused, not mixed in.

    A row that was torn by a crash, or whose hash differs, counts as missing and is trained again.

    Example:
        >>> import tempfile
        >>> log = VoteLog(Path(tempfile.mkdtemp()) / "log", n_inputs=3, n_labels=10, run="demo")
        >>> log.add(1, np.array([4, 4, 9]))
        >>> log.missing(3)
        [0, 2]
    """

    folder: Path
    n_inputs: int
    n_labels: int
    run: str

    def add(self, model_id: int, votes_row: ArrayLike) -> None:
        """Store one model's votes `[T]`; on return they are on the disk.

        Raises:
            ConfigError: if the row has another length or a label out of range.
            ArtifactError: if the model's votes are there already and differ.
        """
        row = check_votes(np.asarray(votes_row)[None], self.n_labels)[0].astype(vote_type(self.n_labels))
        if len(row) != self.n_inputs:
            raise ConfigError(f"votes_row has {len(row)} entries; this log takes {self.n_inputs} per model")
        stored = self._read(model_id)
        if stored is None:
            body = self._head(model_id) + row.astype(row.dtype.newbyteorder("<")).tobytes()
            write_atomically(self._path(model_id), hashlib.sha256(body).digest() + body)
        elif not np.array_equal(stored, row):
            raise ArtifactError(f"{self._path(model_id)} already holds other votes for model {model_id}")

    def missing(self, n_models: int) -> list[int]:
        """The ids below n_models whose votes are not (or not intact) in the folder."""
        return [model for model in range(n_models) if self._read(model) is None]

    def collect(self, n_models: int) -> NDArray[np.unsignedinteger[Any]]:
        """All votes `[n_models, T]`.

        Raises:
            ArtifactError: naming the models that are missing.
        """
        rows = [self._read(model) for model in range(n_models)]
        missing = [model for model, row in enumerate(rows) if row is None]
        if missing:
            shown = ", ".join(map(str, missing[:5])) + (", ..." if len(missing) > 5 else "")
            raise ArtifactError(f"{self.folder} lacks the votes of {len(missing)} of {n_models} models: {shown}")
        return np.stack([row for row in rows if row is not None])

    def _path(self, model_id: int) -> Path:
        if isinstance(model_id, bool) or not isinstance(model_id, int | np.integer) or model_id < 0:
            raise ConfigError(f"model_id={model_id!r} must be an integer of at least 0")
        return Path(self.folder) / f"model-{model_id:07d}.votes"

    def _head(self, model_id: int) -> bytes:
        return LOG_HEAD + f"{self.run}\n{model_id} {self.n_inputs} {self.n_labels}\n".encode()

    def _read(self, model_id: int) -> NDArray[np.unsignedinteger[Any]] | None:
        try:
            content = self._path(model_id).read_bytes()
        except FileNotFoundError:
            return None
        digest, body = content[:32], content[32:]
        if hashlib.sha256(body).digest() != digest:
            return None
        head = self._head(model_id)
        if not body.startswith(head):
            raise ArtifactError(f"{self._path(model_id)} belongs to another run; use a new folder or move it away")
        row = np.frombuffer(body[len(head) :], dtype=vote_type(self.n_labels).newbyteorder("<"))
        return row.astype(vote_type(self.n_labels))
