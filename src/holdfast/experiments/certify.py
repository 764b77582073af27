"""`holdfast certify`: train an ensemble of federated models on groups of clients, vote, certify every test input.

data → partition → design → models and votes → certificates → report; every stage is a file in the run's folder, so an
interrupted run goes on where it stopped and everything right of the votes can be done again from the votes.
"""

from __future__ import annotations

import hashlib
import secrets
import shlex
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from holdfast.ensemble import Design, VoteLog, Votes, make_design
from holdfast.experiments import run as runs
from holdfast.experiments.certificates import certify_votes, save_certificates
from holdfast.experiments.events import Events, Silent
from holdfast.experiments.federation import CertifyConfig, Federation, load_federation
from holdfast.experiments.plan import plan_table
from holdfast.experiments.recertify import load_votes
from holdfast.experiments.result import CertifyResult, build_content
from holdfast.experiments.run import Run
from holdfast.report.figures import save_report_figures
from holdfast.report.page import write_page
from holdfast.training import Trainer, make_trainer, model_factory
from holdfast.training.batches import derive_seed
from holdfast.training.ensemble import Progress, train_ensemble, train_single, training_fingerprint
from holdfast.types import ArtifactError, ConfigError

JOB = "certify"


def certify_run(
    config: CertifyConfig,
    out: Path,
    *,
    alpha: float = 0.001,
    seed: str | None = None,
    resume: bool = False,
    given: Mapping[str, Any] | None = None,
    engine: str = "auto",
    device: str = "cpu",
    threads: int | None = None,
    keep_models: bool = True,
    events: Events | None = None,
) -> CertifyResult:
    """Run, or continue, one certified ensemble; the folder `out` holds every stage.

    Args:
        config: what to train on whom.
        out: the run's folder; one that holds a run already is never overwritten.
        alpha: failure probability of `secret` and `ideal` certificates.
        seed: everything random follows from it; a fresh 256-bit secret when None.
        resume: continue the run in `out` with its own configuration, or start it if there is none.
        given: with `resume`, the options to compare with the run's own; others are taken from the run.
        engine: "auto", "compiled" or "torch".
        device: where torch computes.
        threads: threads to use; None takes all cores.
        keep_models: keep the models' weights beside their votes.
        events: hears what happens.

    Raises:
        ConfigError: options that do not fit together or with the run in `out`.
        DataError: data that cannot be used.
        ArtifactError: files of the run that are damaged or foreign.
    """
    events = events or Silent()
    if not 0 < alpha < 1:
        raise ConfigError(f"alpha = {alpha} must be inside (0, 1), for example 0.001")
    continued = resume and Run(Path(out)).manifest_path.exists()
    if continued:
        run = runs.resume(Path(out), JOB, given or {})
        config = _stored_config(run)
        seed = str(run.secret()["seed"]) if seed is None else seed
    else:
        seed = secrets.token_hex(32) if seed is None else str(seed)
    master = int.from_bytes(hashlib.sha256(b"holdfast training\0" + seed.encode()).digest()[:16], "big")
    federation = load_federation(config, seed=derive_seed(master, "partition"))
    design = make_design(config.design, n=len(federation.untrusted), k=config.k, n_models=config.models, seed=seed)
    trainer = _trainer(config, federation, master, engine, device, threads)
    data_hash = federation.dataset.fingerprint()
    if continued:
        _check_same(run, design, data_hash)
    else:
        run = _start(Path(out), config, federation, design, seed, data_hash)
    plan = plan_table(
        n=design.n,
        k=design.k,
        n_models=design.n_models,
        n_inputs=len(federation.dataset.y_test),
        n_labels=federation.dataset.n_labels,
        alpha=alpha,
        design=design.kind,
    )
    events.note(plan.text())
    votes = _train(run, config, federation, design, trainer, keep_models, events)
    return _finish(run, federation, votes, alpha, events)


def _trainer(
    config: CertifyConfig, federation: Federation, master: int, engine: str, device: str, threads: int | None
) -> Trainer:
    dataset = federation.dataset
    name = config.model or default_model(config.data)
    factory = model_factory(name, dataset.x_train.shape[1:], dataset.n_labels)
    return make_trainer(
        factory,
        dataset.x_train,
        dataset.y_train,
        federation.partition,
        config.fedavg(),
        seed=derive_seed(master, "training"),
        engine=engine,  # type: ignore[arg-type]  # checked there
        device=device,
        threads=threads,
    )


def default_model(data: str) -> str:
    """The model a data set is trained with unless another is asked for."""
    return {"mnist": "cnn", "har": "har"}.get(data, "mlp")


def _start(out: Path, config: CertifyConfig, federation: Federation, design: Design, seed: str, data_hash: str) -> Run:
    dataset = federation.dataset
    return runs.start(
        out,
        JOB,
        asdict(config),
        {"seed": seed, "meaning": "draws the assignment and all training; keep it from clients, reveal it for audit"},
        command=shlex.join(["holdfast", *sys.argv[1:]]),
        data={
            "name": dataset.name,
            "sha256": data_hash,
            "n_train": len(dataset.y_train),
            "n_test": len(dataset.y_test),
            "n_labels": dataset.n_labels,
            "label_names": list(dataset.label_names),
        },
        design={"kind": design.kind, "n": design.n, "k": design.k, "models": design.n_models},
        design_sha256=design.fingerprint,
        seed_commitment=design.commitment,
    )


def _stored_config(run: Run) -> CertifyConfig:
    stored = run.manifest()["config"]
    return CertifyConfig(**{**stored, "trusted": tuple(stored["trusted"])})


def _check_same(run: Run, design: Design, data_hash: str) -> None:
    manifest = run.manifest()
    if manifest["seed_commitment"] != design.commitment:
        raise ConfigError(f"--resume: --seed is not the one {run.path} was started with; leave it out")
    if manifest["design_sha256"] != design.fingerprint:
        raise ArtifactError(f"{run.manifest_path}: the design does not match its hash; the file was edited")
    if manifest["data"]["sha256"] != data_hash:
        raise ArtifactError(
            f"--resume: the data is not the data {run.path} was started with: its SHA-256 begins {data_hash[:12]}, "
            f"run.json says {manifest['data']['sha256'][:12]}"
        )


def _train(
    run: Run,
    config: CertifyConfig,
    federation: Federation,
    design: Design,
    trainer: Trainer,
    keep_models: bool,
    events: Events,
) -> Votes:
    """Train what is missing; the votes are sealed once all models are there."""
    if "votes_sha256" in run.manifest():
        return load_votes(run)
    dataset = federation.dataset
    members = federation.members(design)
    began = time.monotonic()
    fingerprint = training_fingerprint(
        trainer,
        members,
        dataset.x_train,
        dataset.y_train,
        dataset.x_test,
        federation.partition.offsets,
        federation.partition.indices,
    )

    def tell(stage: str) -> Progress:
        return lambda done, total, left: events.progress(stage, done, total, left)

    def accuracy(stage: str, clients: NDArray[np.int64]) -> float:
        folder = run.path / stage
        params = train_single(trainer, clients, run_dir=folder, run=fingerprint, on_progress=tell(f"{stage} model"))
        return float((trainer.predict(params[None], dataset.x_test)[0] == dataset.y_test).mean())

    store = VoteLog(run.path / "log", len(dataset.y_test), dataset.n_labels, fingerprint)
    labels = train_ensemble(
        trainer, members, dataset.x_test, store, run_dir=run.path, keep_models=keep_models, on_progress=tell("models")
    )
    results: dict[str, float] = {}
    if config.baseline:
        everyone = np.arange(federation.partition.n, dtype=np.int64)
        results["single_fedavg_accuracy"] = accuracy("single", everyone)
    if len(federation.trusted):
        results["trusted_only_accuracy"] = accuracy("trusted", federation.trusted)
    votes = Votes(labels, design.without_seed(), dataset.n_labels, dataset.y_test, facts={"data": dataset.name})
    votes.save(run.votes_path)
    timings = {"training this session": time.monotonic() - began}
    run.update(votes_sha256=votes.source, results=results, timings=timings, engine=trainer.engine)
    return votes


def _finish(run: Run, federation: Federation, votes: Votes, alpha: float, events: Events) -> CertifyResult:
    began = time.monotonic()
    certificates = certify_votes(votes, alpha=alpha)
    save_certificates(run.certificates_path, votes, certificates)
    timings = {**run.manifest().get("timings", {}), "certification": time.monotonic() - began}
    run.update(timings=timings, assumptions={c.kind: list(c.assumptions) for c in certificates})
    dataset = federation.dataset
    images = dataset.x_test if dataset.image_shape is not None else None
    content = build_content(votes, certificates, run.manifest(), run=run.path, images=images)
    write_page(content, run.report_path, overwrite=True)
    save_report_figures(content, run.path / "figures", overwrite=True)
    events.note(f"report: {run.report_path}")
    return CertifyResult(run.path, votes, tuple(certificates), content)
