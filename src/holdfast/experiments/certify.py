"""`holdfast certify` and `certify-data`: train an ensemble, vote, certify every test input.

The models train on groups of clients or on selections of training examples. data → partition → design → models and
votes → certificates → report; every stage is a file in the run's folder, so an interrupted run goes on where it
stopped and everything right of the votes can be done again from the votes.
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

from holdfast.ensemble import Design, VoteLog, Votes
from holdfast.experiments import run as runs
from holdfast.experiments.certificates import CLIENTS, certify_votes, kinds_for, save_certificates
from holdfast.experiments.events import Events, Silent
from holdfast.experiments.question import Question, resumed
from holdfast.experiments.recertify import load_votes
from holdfast.experiments.result import CertifyResult, build_content
from holdfast.experiments.run import Run
from holdfast.experiments.study import SECOND_PHASE, Extra, Study, StudyConfig, Task, Workshop
from holdfast.report.figures import save_report_figures
from holdfast.report.page import write_page
from holdfast.training.batches import derive_seed
from holdfast.training.ensemble import train_ensemble, train_single, training_fingerprint
from holdfast.training.segments import Progress
from holdfast.types import ArtifactError, ConfigError


def certify_run(
    config: StudyConfig,
    out: Path,
    *,
    alpha: float | None = None,
    poisoning: str | None = None,
    perspective: str | None = None,
    seed: str | None = None,
    resume: bool = False,
    given: Mapping[str, Any] | None = None,
    engine: str = "auto",
    device: str = "cpu",
    threads: int | None = None,
    keep_models: bool = True,
    workshop: Workshop | None = None,
    command: str | None = None,
    events: Events | None = None,
) -> CertifyResult:
    """Run, or continue, one certified ensemble; the folder `out` holds every stage.

    Args:
        config: what to train on whom: a `CertifyConfig` (clients) or an `ExamplesConfig` (training examples).
        out: the run's folder; one that holds a run already is never overwritten.
        alpha: failure probability of `secret`, `ideal` and `data` certificates; None takes that of the run that goes
            on, or 0.001. So it is with `poisoning` and `perspective`.
        poisoning: what the malicious may do, "P1" to "P6"; see `certify_votes`. At first "P3".
        perspective: "clean" or "observed"; see `certify_votes`. At first "clean".
        seed: everything random follows from it; a fresh 256-bit secret when None.
        resume: continue the run in `out` with its own configuration, or start it if there is none.
        given: with `resume`, the options to compare with the run's own; others are taken from the run.
        engine: "auto", "compiled" or "torch".
        device: where torch computes.
        threads: threads to use in this process; None takes all cores.
        keep_models: keep the models' weights beside their votes.
        workshop: where training happens, instead of `engine`, `device` and `threads` here.
        command: the command line for the manifest, where it is not this process's.
        events: hears what happens.

    Raises:
        ConfigError: options that do not fit together or with the run in `out`.
        DataError: data that cannot be used.
        ArtifactError: files of the run that are damaged or foreign.
        EngineError: workers cannot be reached, or die again and again; `resume` goes on.
    """
    events = events or Silent()
    asked = {"alpha": alpha, "poisoning": poisoning, "perspective": perspective}
    question = Question().but(**asked)
    continued = resume and Run(Path(out)).manifest_path.exists()
    if continued:
        run = runs.resume(Path(out), config.job, given or {})
        question = resumed(run, asked)
        config = _stored_config(config, run)
        seed = str(run.secret()["seed"]) if seed is None else seed
    elif resume and given is not None and not given:
        raise ConfigError(f"--resume: {out} holds no run yet; name the folder of a run, or say what to train as well")
    else:
        seed = secrets.token_hex(32) if seed is None else str(seed)
    master = int.from_bytes(hashlib.sha256(b"holdfast training\0" + seed.encode()).digest()[:16], "big")
    study = config.study(seed=derive_seed(master, "partition"))
    design = study.design(seed)
    # Refuses before anything is trained.
    kinds_for(design, study.facts().get("unit", CLIENTS), poisoning=question.poisoning)
    outlook = study.outlook(design, question.alpha)
    workshop = workshop or Workshop(engine, device, threads)
    task = study.task(design, workshop, seed=derive_seed(master, "training"))
    data_hash = study.dataset.fingerprint()
    if continued:
        _check_same(run, design, data_hash)
    else:
        told = {"command": command or typed_command(seed), "question": question.entry()}
        run = _start(Path(out), config, study, design, seed, data_hash, told)
    events.note(outlook)
    votes = _train(run, study, design, task, workshop, keep_models, events)
    return _finish(run, study, votes, question, events)


def _start(
    out: Path,
    config: StudyConfig,
    study: Study,
    design: Design,
    seed: str,
    data_hash: str,
    told: Mapping[str, Any],
) -> Run:
    dataset = study.dataset
    return runs.start(
        out,
        config.job,
        asdict(config),  # type: ignore[call-overload]  # every configuration is a dataclass
        {"seed": seed, "meaning": "draws the assignment and all training; keep it from clients, reveal it for audit"},
        **told,
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


def typed_command(seed: str | None) -> str:
    """The command line as typed, without the seed: the manifest is public."""
    words = ["SEED" if word == seed else word.replace(f"--seed={seed}", "--seed=SEED") for word in sys.argv[1:]]
    return shlex.join(["holdfast", *words])


def _stored_config(config: StudyConfig, run: Run) -> StudyConfig:
    """The configuration a run was started with, of the kind of the one given now."""
    stored = run.manifest()["config"]
    return type(config)(**{name: tuple(value) if isinstance(value, list) else value for name, value in stored.items()})


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
    run: Run, study: Study, design: Design, task: Task, workshop: Workshop, keep_models: bool, events: Events
) -> Votes:
    """Train what is missing; the votes are sealed once all models are there."""
    if "votes_sha256" in run.manifest():
        return load_votes(run)
    dataset, trainer = study.dataset, task.trainer
    began, worked = time.monotonic(), time.process_time()
    fingerprint = training_fingerprint(trainer, task.members, *task.arrays)

    def tell(stage: str) -> Progress:
        return lambda done, total, left: events.progress(stage, done, total, left)

    def answers(stage: str, extra: Extra | None) -> NDArray[np.int64] | None:
        """The labels that one model beside the ensemble gives."""
        if extra is None:
            return None
        same = extra.trainer is trainer
        belongs_to = fingerprint if same else training_fingerprint(extra.trainer, [extra.holders], *extra.arrays)
        params = train_single(
            extra.trainer,
            extra.holders,
            run_dir=run.path / stage,
            run=belongs_to,
            on_progress=tell(f"{stage} model"),
            checkpoint_seconds=workshop.checkpoint_seconds,
        )
        return np.asarray(extra.labels[extra.trainer.predict(params[None], dataset.x_test)[0]])

    second = answers("second-phase", task.second)
    store = VoteLog(run.path / "log", len(dataset.y_test), len(task.labels), fingerprint)
    if workshop.place is not None:
        events.note(f"models train on {workshop.place}")
    rows = train_ensemble(
        trainer,
        task.members,
        dataset.x_test,
        store,
        run_dir=run.path,
        keep_models=keep_models,
        on_progress=tell("models"),
        checkpoint_seconds=workshop.checkpoint_seconds,
        elsewhere=workshop.elsewhere(task, events.note),
    )
    single = answers("single", task.single)
    trusted = second if second is not None else answers("trusted", task.trusted)
    results = {
        name: float((found == dataset.y_test).mean())
        for name, found in (("single_fedavg_accuracy", single), ("trusted_only_accuracy", trusted))
        if found is not None
    }
    labels = final_labels(rows, task.labels, second)
    votes = Votes(labels, design.without_seed(), dataset.n_labels, dataset.y_test, facts=study.facts())
    votes.save(run.votes_path)
    whose = "this session" if workshop.place is None else "this process without its workers"
    timings = {
        "training, this session": time.monotonic() - began,
        f"training, {whose}, CPU": time.process_time() - worked,
    }
    run.update(
        votes_sha256=votes.source,
        results=results,
        timings=timings,
        peak_memory_mib=_peak_memory(),
        engine=trainer.engine,
        **({} if workshop.place is None else {"place": str(workshop.place)}),
        **{name: votes.facts[name] for name in ("absences",) if name in votes.facts},
    )
    return votes


def _peak_memory() -> float | None:
    """The most memory this process ever held, in MiB, where the system tells."""
    if sys.platform == "win32":
        return None
    import resource

    unit = 1 if sys.platform == "darwin" else 1024  # bytes there, KiB elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20


def final_labels(
    outputs: NDArray[Any], labels: NDArray[np.int64], second: NDArray[np.int64] | None
) -> NDArray[np.uint32]:
    """The data set's labels behind models' outputs `[..., T]`; the second phase `[T]` tells trusted classes apart."""
    found = labels[outputs]
    return (found if second is None else np.where(found == SECOND_PHASE, second, found)).astype(np.uint32)


def _finish(run: Run, study: Study, votes: Votes, question: Question, events: Events) -> CertifyResult:
    began = time.monotonic()
    certificates = certify_votes(votes, **question.entry())
    save_certificates(run.certificates_path, votes, certificates)
    timings = {**run.manifest().get("timings", {}), "certification": time.monotonic() - began}
    run.update(timings=timings, assumptions={c.kind: list(c.assumptions) for c in certificates})
    dataset = study.dataset
    images = dataset.x_test if dataset.image_shape is not None else None
    content = build_content(votes, certificates, run.manifest(), run=run.path, images=images)
    write_page(content, run.report_path, overwrite=True)
    save_report_figures(content, run.path / "figures", overwrite=True)
    events.note(f"report: {run.report_path}")
    return CertifyResult(run.path, votes, tuple(certificates), content)
