"""What a certify run ends with: the certificates and the content of its report, for terminal, JSON and page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray
from rich.console import Console

from holdfast import report
from holdfast.certification import Certificate
from holdfast.ensemble import Design, Votes
from holdfast.experiments.certificates import CLIENTS, EXAMPLES, absences_told, unit_of
from holdfast.report import CertifyReport


@dataclass(frozen=True)
class CertifyResult:
    """Certificates of one run and what is said about them."""

    run: Path
    votes: Votes
    certificates: tuple[Certificate, ...]
    content: CertifyReport

    def to_json(self) -> dict[str, Any]:
        """Every number of the report."""
        return {"run": str(self.run), **report.to_json(self.content)}

    def print(self, console: Console) -> None:
        """The answer in one sentence, then the tables."""
        console.print(f"\n{report.headline(self.content)}\n", markup=False, highlight=False)
        report.show(*report.certified_tables(self.content), console=console)


def describe(design: Design) -> str:
    """A design in words.

    Example:
        >>> from holdfast.ensemble import make_design
        >>> describe(make_design("partitions", n=12, k=4, n_models=6, seed="an example"))
        '2 secret partitions into groups of 4'
    """
    sizes = sorted(set(design.group_sizes))
    groups = "groups of " + (str(sizes[0]) if len(sizes) == 1 else f"{sizes[0]} to {sizes[-1]}")
    if design.kind == "partitions":
        several = f"{design.repeats} secret partitions" if design.repeats > 1 else "1 secret partition"
        return f"{several} into {groups}"
    if design.kind == "disjoint":
        return f"{design.n_models} disjoint {groups}"
    if design.kind == "random":
        return f"{design.n_models} random groups of {design.k}"
    if design.kind == "replacement":
        return f"{design.n_models} draws of {design.k} with replacement"
    if design.kind == "binomial":
        return f"{design.n_models} binomial selections, p = {float(design.p or 0):g}"
    if design.kind == "exhaustive":
        return f"all {design.n_models} groups of {design.k}"
    return f"{design.n_models} spread groups of {design.k}"


def not_covered(votes: Votes, *, trusted: int = 0) -> tuple[str, ...]:
    """Limits of this run beside those that every certificate of a kind has; `trusted` clients are in every group."""
    design = votes.design
    told = []
    if trusted:
        some = f"{trusted} trusted clients take" if trusted > 1 else "1 trusted client takes"
        told.append(
            f"A trusted client that turns malicious: {some} part in every group and can change every prediction. The "
            f"{design.n} clients that the certificates count are the others."
        )
    if not design.secret and "secret" in design.certificates:
        drawn = "selections" if unit_of(votes) == EXAMPLES else "groups"
        told.append(
            f"The seed was chosen by the operator and is short: whoever guesses it knows the {drawn}. "
            "The certificate of kind secret then only holds against attackers who did not."
        )
    if unit_of(votes) == EXAMPLES and votes.facts.get("case") != 1:
        told.append(
            "Poisoned trusted data: which examples are trusted must be known from where they came from, not read off "
            "labels that an attacker may have changed."
        )
    absences = absences_told(votes)
    if absences is not None:
        told.append(absences[0].upper() + absences[1:] + ".")
    return tuple(told)


def build_content(
    votes: Votes,
    certificates: Sequence[Certificate],
    manifest: Mapping[str, Any],
    *,
    run: Path,
    images: NDArray[Any] | None = None,
) -> CertifyReport:
    """Gather what the report shows from the votes, the certificates and the manifest."""
    labels = votes.labels
    design = votes.design
    words = describe(design)
    if unit_of(votes) == EXAMPLES:
        words = words.replace("groups", "selections")
    results = manifest.get("results", {})
    trusted = set(manifest["config"].get("trusted", ())) if unit_of(votes) == CLIENTS else set()
    return CertifyReport(
        title=f"Certified {'ensemble' if unit_of(votes) == CLIENTS else 'training data'}: {manifest['data']['name']}",
        dataset=manifest["data"]["name"],
        n_clients=design.n,
        n_models=design.n_models,
        kinds=tuple(
            report.summarize(certificate, labels, design=words, n_models=design.n_models)
            for certificate in certificates
        ),
        clean_accuracy_single_fedavg=results.get("single_fedavg_accuracy"),
        trusted_only_accuracy=results.get("trusted_only_accuracy"),
        examples=report.pick_examples(
            certificates[0].prediction,
            certificates[0].radius,
            images=images,
            labels=labels,
            label_names=manifest["data"]["label_names"],
            counts=votes.counts(),
        ),
        not_covered=not_covered(votes, trusted=len(trusted)),
        config=manifest["config"],
        hashes={**votes.hashes, "data": manifest["data"]["sha256"], "config": manifest["config_sha256"]},
        versions=manifest["versions"],
        timings=manifest.get("timings", {}),
        seed_commitment=design.commitment,
        run=str(run),
        command=manifest.get("command"),
        unit=unit_of(votes),
    )
