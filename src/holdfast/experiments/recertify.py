"""`holdfast recertify`: answer a new question about an old run from its votes; needs neither torch nor the data."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from holdfast.ensemble import Votes
from holdfast.experiments.certificates import certify_votes, save_certificates
from holdfast.experiments.question import Question
from holdfast.experiments.result import CertifyResult, build_content
from holdfast.experiments.run import Run
from holdfast.types import ArtifactError, ConfigError


def load_votes(run: Run) -> Votes:
    """The votes of a run, checked against its manifest: a truncated, edited or foreign file is refused."""
    manifest = run.manifest()
    expected = manifest.get("votes_sha256")
    if expected is None:
        raise ArtifactError(
            f"{run.path} has not finished training; continue it with: holdfast {manifest['job']} --resume"
        )
    votes = Votes.load(run.votes_path)
    if votes.source != expected:
        raise ArtifactError(
            f"{run.votes_path} holds votes of another run: their SHA-256 begins {votes.source[:12]}, "
            f"run.json says {expected[:12]}"
        )
    return votes


def recertify_run(
    path: Path,
    *,
    kinds: Sequence[str] | None = None,
    alpha: float | None = None,
    bound: str = "degree",
    method: str = "auto",
    poisoning: str | None = None,
    perspective: str | None = None,
    partitions: int | None = None,
    out: Path | None = None,
) -> CertifyResult:
    """Certify the stored votes again.

    Args:
        path: the run's folder.
        kinds: certificate kinds; None takes all that the design allows.
        alpha: failure probability of `secret`, `ideal` and `data`; None takes the run's own. So it is with
            `poisoning` and `perspective`.
        bound: bound of `deployed`.
        method: confidence method of `ideal` and `data`.
        poisoning: what the malicious may do, "P1" to "P6"; see `certify_votes`.
        perspective: "clean" or "observed"; see `certify_votes`.
        partitions: use only the first so many partitions of a partitions design.
        out: Parquet file to write the certificates to; never overwritten.
    """
    run = Run(Path(path))
    manifest = run.manifest()
    votes = load_votes(run)
    if out is not None and Path(out).exists():
        raise ConfigError(f"--out {out} exists already; name a new file")
    if partitions is not None:
        votes = votes.prefix(partitions)
    question = Question.of(run).but(alpha=alpha, poisoning=poisoning, perspective=perspective)
    certificates = certify_votes(votes, kinds=kinds, bound=bound, method=method, **question.entry())
    if out is not None:
        save_certificates(Path(out), votes, certificates)
    return CertifyResult(run.path, votes, tuple(certificates), build_content(votes, certificates, manifest, run=path))
