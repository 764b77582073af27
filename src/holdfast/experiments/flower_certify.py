"""`holdfast flower certify`, the command's half: check, hand the job to the federation, follow it, read the result."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from holdfast.ensemble import make_design
from holdfast.experiments.certify import typed_command
from holdfast.experiments.enrolled import EnrolledConfig
from holdfast.experiments.events import Events
from holdfast.experiments.flower_app import job_for
from holdfast.experiments.recertify import recertify_run
from holdfast.experiments.result import CertifyResult
from holdfast.experiments.run import Run
from holdfast.flower import jobs
from holdfast.flower.processes import listens
from holdfast.flower.site import Site
from holdfast.types import ConfigError

SERVER_APP = "holdfast.experiments.flower_app:server"
CLIENT_APP = "holdfast.flower.ensemble_client:app"


def certify_on_nodes(
    site: Site,
    settings: Mapping[str, Any],
    out: Path,
    *,
    options: Mapping[str, Any],
    given: Mapping[str, Any],
    client_app: str = CLIENT_APP,
    events: Events,
) -> CertifyResult:
    """Train on the nodes of a running federation, and certify.

    Args:
        site: the federation.
        settings: of `EnrolledConfig`, beside those that follow from the site.
        out: the run's folder.
        options: see `job_for`.
        given: the settings to compare with the run's own when it is resumed.
        client_app: what nodes run.
        events: hears what happens.

    Raises:
        ConfigError: no server runs, fewer clients than the design needs, a folder that is taken, and all that
            `certify_run` refuses.
        ProcessError: Flower does not take the run, or the ServerApp dies.
    """
    rows = site.enrolled()
    examples = tuple(row.examples for row in rows if row.examples is not None)
    config = EnrolledConfig(**{**settings, "clients": site.clients, "site": str(site.path), "examples": examples})
    continued = options["resume"] and Run(out).manifest_path.exists()
    if not continued:
        _check_design(config)
        if Run(out).manifest_path.exists():
            raise ConfigError(f"--out {out} already holds a run; continue it with --resume or name another folder")
    if not listens(site.superlink_port):
        raise ConfigError(f"no server runs for {site.path}; start it with: holdfast flower up {site.path}")
    command = typed_command(options["seed"])
    job = job_for(config, out, options=options, given=given, command=command)
    name = f"certify-{secrets.token_hex(4)}"
    last = jobs.run(site, name, job, server=SERVER_APP, client=client_app, listener=events)
    if "error" in last:
        raise ConfigError(last["error"])
    return recertify_run(out)


def _check_design(config: EnrolledConfig) -> None:
    """Refuse a design that the enrolled clients cannot fill, before anything is started."""
    n = int(config.clients or 0) - len(config.trusted)
    make_design(config.design, n=n, k=config.k, n_models=config.models, seed=0)
