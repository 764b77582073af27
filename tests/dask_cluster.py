"""A Dask cluster of real processes on this machine, for tests that kill some of them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

from tests.engine_work import eventually

ROOT = Path(__file__).parents[1]


class Cluster:
    """A scheduler and workers; `settings` are Dask's, by the names of environment variables."""

    def __init__(self, folder: Path, *, workers=2, python_path=f"{ROOT / 'src'}:{ROOT}", protocol="tcp", **settings):
        self.folder, self.protocol = folder, protocol
        self.environment = os.environ | {"PYTHONPATH": python_path, "OMP_NUM_THREADS": "1"} | settings
        self.all = []
        self.start_scheduler(port=0)
        self.workers = [self.start_worker() for _ in range(workers)]
        eventually(lambda: self._registered() == workers, seconds=60)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for process in self.all:
            process.kill()
        for process in self.all:
            process.wait()

    def start_scheduler(self, *, port):
        """On a port, or any free one; returns when it listens."""
        told = self.folder / "scheduler.json"
        told.unlink(missing_ok=True)
        where = ("--host", f"{self.protocol}://127.0.0.1", "--port", str(port))
        self.scheduler = self._start("scheduler", *where, "--scheduler-file", str(told))
        eventually(lambda: told.exists() and told.stat().st_size > 0, seconds=60)
        self.address = json.loads(told.read_text())["address"]

    def start_worker(self, *options, **environment):
        """One more, in a process of its own."""
        common = ("--no-nanny", "--local-directory", str(self.folder), "--death-timeout", "60")
        return self._start("worker", self.address, *(options or ("--nthreads", "1")), *common, **environment)

    def freeze(self, process):
        """To the others, a frozen process is a machine that lost its power: nothing comes, not even a goodbye."""
        process.send_signal(signal.SIGSTOP)

    def _registered(self):
        return sum("Registered to" in log.read_text() for log in self.folder.glob("worker-*.log"))

    def _start(self, what, *options, **environment):
        command = [sys.executable, "-m", f"distributed.cli.dask_{what}", "--no-dashboard", *options]
        with (self.folder / f"{what}-{len(self.all)}.log").open("w") as log:
            process = subprocess.Popen(command, env=self.environment | environment, stdout=log, stderr=log)
        self.all.append(process)
        return process
