"""Weights on the disk: safetensors files, written so that a crash leaves the old file or the new one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from holdfast.files import write_atomically
from holdfast.types import ArtifactError


def write_weights(path: Path, tensors: Mapping[str, torch.Tensor], facts: Mapping[str, str]) -> None:
    """Write tensors and text facts to a safetensors file, atomically; on return it is on the disk."""
    named = {name: tensor.contiguous() for name, tensor in tensors.items()}
    write_atomically(path, save(named, metadata=dict(facts)))


def read_weights(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """The tensors and facts of a file that `write_weights` wrote.

    Raises:
        ArtifactError: the file is missing, truncated or no safetensors file.
    """
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise ArtifactError(f"{path} is missing, truncated or no safetensors file ({error})") from error
