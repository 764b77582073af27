"""The ServerApp of a certified ensemble, and the command's half of it.

`flwr run` hands nothing but the path of a job file to the ServerApp (`serverapp =
"holdfast.experiments.flower_app:server"`), so that no secret travels through Flower or into its database. What the
job has to say comes back as lines of JSON beside the job file.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from holdfast.experiments.certify import certify_run
from holdfast.experiments.enrolled import EnrolledConfig, GridWorkshop
from holdfast.flower import jobs
from holdfast.flower.ensemble import server_app, wait_for_nodes
from holdfast.flower.grid import SafeGrid
from holdfast.flower.jobs import Journal
from holdfast.flower.site import open_site
from holdfast.types import ConfigError, HoldfastError


def run_job(grid: SafeGrid, run_config: Mapping[str, Any]) -> None:
    """Do what the job file says; every end of it, good or bad, is told in the journal."""
    path = Path(str(run_config["job"]))
    journal = Journal(path)
    journal.tell(pid=os.getpid())
    try:
        job = json.loads(path.read_text(encoding="utf-8"))
        with jobs.alone(path.parent, job["out"]):
            _certify(job, grid, journal)
    except HoldfastError as problem:
        journal.tell(error=str(problem))
    except BaseException as problem:
        journal.tell(failed=f"{type(problem).__name__}: {problem}")
        raise
    else:
        journal.tell(done=True)


def job_for(
    config: EnrolledConfig, out: Path, *, options: Mapping[str, Any], given: Mapping[str, Any], command: str
) -> dict[str, Any]:
    """What a job file says.

    Args:
        config: what decides the votes.
        out: the run's folder.
        options: `alpha`, `seed`, `resume`, `keep_models`, `engine`, `threads` of `certify_run`, and `wait`: seconds
            until all nodes must be connected.
        given: with `resume`, the options to compare with the run's own.
        command: the command line, for the manifest.
    """
    return {
        "config": asdict(config),
        "out": str(out.resolve()),
        "options": dict(options),
        "given": dict(given),
        "command": command,
    }


def _certify(job: Mapping[str, Any], grid: SafeGrid, journal: Journal) -> None:
    lists = {name: tuple(job["config"][name]) for name in ("trusted", "examples")}
    config = EnrolledConfig(**job["config"] | lists)
    options, out = dict(job["options"]), Path(job["out"])
    nodes = []
    for row in open_site(Path(config.site)).enrolled():
        if row.node_id is None:
            raise ConfigError(f"client {row.client} is not registered; start the server with: holdfast flower up")
        nodes.append(row.node_id)
    wait_for_nodes(grid, nodes, seconds=options.pop("wait"))
    workshop = GridWorkshop(
        engine=options.pop("engine"),
        threads=options.pop("threads"),
        checkpoint_seconds=0.0,
        grid=grid,
        nodes=nodes,
        out=out,
        note=journal.note,
    )
    certify_run(config, out, **options, given=job["given"], workshop=workshop, command=job["command"], events=journal)


server = server_app(run_job)
