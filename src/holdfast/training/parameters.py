"""A model as one flat vector: where each tensor lies, the way there and back, and reproducible initial weights."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from holdfast.training.batches import derive_seed
from holdfast.types import ConfigError

Factory = Callable[[], nn.Module]

_generators = threading.RLock()  # torch has one of each kind per process, whatever the number of threads


@contextmanager
def private_rng(seed: int, device: torch.device | None = None) -> Iterator[None]:
    """Torch's generators (the CPU's, and that of a CUDA `device`) seeded inside the block and put back afterwards.

    Threads take turns: nobody else's block draws from the generators meanwhile.
    """
    gpu = device if device is not None and device.type == "cuda" else None
    with _generators:
        state = torch.random.get_rng_state()
        gpu_state = torch.cuda.get_rng_state(gpu) if gpu else None
        try:
            reseed(seed, device)
            yield
        finally:
            torch.random.set_rng_state(state)
            if gpu and gpu_state is not None:
                torch.cuda.set_rng_state(gpu_state, gpu)


def reseed(seed: int, device: torch.device | None = None) -> None:
    """Seed the CPU's generator and that of a CUDA `device`; unlike `torch.manual_seed`, no other device's."""
    torch.default_generator.manual_seed(seed)
    if device is not None and device.type == "cuda":
        torch.cuda.default_generators[device.index or 0].manual_seed(seed)


def state_tensors(module: nn.Module) -> dict[str, torch.Tensor]:
    """The tensors that are learned, by name and in flat order: parameters, then floating-point buffers.

    Buffers are the running statistics of batch normalization: clients change them, so the server averages them
    with the weights. Integer buffers (counters, constants) stay as the factory made them.
    """
    tensors: dict[str, torch.Tensor] = dict(module.named_parameters())
    tensors.update((name, buffer) for name, buffer in module.named_buffers() if buffer.is_floating_point())
    return tensors


def layout(module: nn.Module) -> dict[str, slice]:
    """Where each tensor of a module lies in the flat vector, by name.

    Example:
        >>> layout(nn.Linear(3, 2))
        {'weight': slice(0, 6, None), 'bias': slice(6, 8, None)}
    """
    slices, start = {}, 0
    for name, tensor in state_tensors(module).items():
        slices[name] = slice(start, start + tensor.numel())
        start += tensor.numel()
    return slices


def flatten(module: nn.Module) -> npt.NDArray[np.float32]:
    """A module's learned tensors as one float32 vector `[P]`, each raveled, in the order of `layout`."""
    tensors = [tensor.detach().to("cpu", torch.float32).reshape(-1) for tensor in state_tensors(module).values()]
    return torch.cat(tensors).numpy()


def unflatten(vector: npt.NDArray[np.float32] | torch.Tensor, module: nn.Module) -> nn.Module:
    """Write a flat vector `[P]` into a module, in place, and return the module.

    Raises:
        ConfigError: the vector has another length than the module has learned values.
    """
    where = layout(module)
    n_params = max((part.stop for part in where.values()), default=0)
    if tuple(vector.shape) != (n_params,):
        raise ConfigError(f"the module has {n_params} learned values, but the vector has shape {list(vector.shape)}")
    values = torch.as_tensor(vector)
    with torch.no_grad():
        for name, tensor in state_tensors(module).items():
            tensor.copy_(values[where[name]].view_as(tensor))
    return module


def initial_parameters(factory: Factory, *, seed: int, model_ids: Sequence[int]) -> npt.NDArray[np.float32]:
    """The initial weights `[N, P]` of models: each a function of (seed, model id) alone, by the module's own rule.

    Torch's generator is seeded from both for the time the factory runs, and put back: the global state is untouched,
    and model 7 starts the same whether it is trained alone or among a thousand.

    Example:
        >>> both = initial_parameters(lambda: nn.Linear(2, 2), seed=1, model_ids=[4, 7])
        >>> alone = initial_parameters(lambda: nn.Linear(2, 2), seed=1, model_ids=[7])
        >>> bool((both[1] == alone[0]).all())
        True
    """
    rows = []
    for model_id in model_ids:
        with private_rng(derive_seed(seed, "init", int(model_id))):
            rows.append(flatten(factory()))
    return np.stack(rows) if rows else np.zeros((0, len(flatten(factory()))), np.float32)
