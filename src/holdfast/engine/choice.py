"""What `--engine` and the options beside it mean: a place, and an engine of training."""

from __future__ import annotations

import os

from holdfast.engine.cluster import Dask
from holdfast.engine.processes import Processes
from holdfast.types import ConfigError

PLACES = ("processes", "dask")


def choose(
    text: str,
    *,
    device: str = "cpu",
    threads: int | None = None,
    workers: int | None = None,
    address: str | None = None,
    wait: float | None = None,
) -> tuple[Processes | Dask | None, str]:
    """The place and the engine of `--engine`, which is ENGINE, PLACE or PLACE:ENGINE; no place is this process.

    Args:
        text: such as "auto", "torch", "processes", "dask:torch".
        device: "cpu" or "cuda".
        threads: threads of each worker; 1 unless given.
        workers: for "processes".
        address: for "dask".
        wait: for "dask".

    Raises:
        ConfigError: options of a place that was not chosen, or one that is missing.

    Example:
        >>> choose("torch")
        (None, 'torch')
        >>> choose("processes:torch", workers=4)
        (Processes(workers=4, threads=1, cards=()), 'torch')
    """
    place, _, engine = text.partition(":") if text.partition(":")[0] in PLACES else ("", "", text)
    for option, value, belongs_to in (
        ("workers", workers, "processes"),
        ("address", address, "dask"),
        ("wait", wait, "dask"),
    ):
        if value is not None and place != belongs_to:
            raise ConfigError(f"--{option} {value} is for --engine {belongs_to}, but the engine is {text}")
    engine = engine or "auto"
    if place == "processes":
        return Processes(workers, threads or 1, _cards(device)), engine
    if place == "dask":
        if address is None:
            raise ConfigError("--engine dask needs --address, the scheduler's, such as tcp://10.0.0.1:8786")
        return Dask(address, threads or 1, device != "cpu", 60.0 if wait is None else wait), engine
    return None, engine


def _cards(device: str) -> tuple[str, ...]:
    """The GPUs that worker processes share out, by the names that CUDA_VISIBLE_DEVICES has for them."""
    if device == "cpu":
        return ()
    if device != "cuda":
        raise ConfigError(f"device {device!r} is one card; with processes say cuda, and choose by CUDA_VISIBLE_DEVICES")
    import torch

    count = torch.cuda.device_count()
    if not count:
        raise ConfigError("device is 'cuda', but torch sees no CUDA device here")
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    return tuple(named.split(",")[:count]) if named else tuple(map(str, range(count)))
