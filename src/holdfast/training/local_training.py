"""How the torch engine lets many clients take their local steps, by SGD or Adam: three ways with one result.

Each takes a stack `[S, P]` of clients' weights, one row per client, and moves every row by the client's own steps,
in place. They agree up to float32 rounding; `choose` picks by what the module allows and what pays.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Protocol

import torch
from torch import nn
from torch.func import functional_call, grad, vmap

from holdfast.training.parameters import layout, private_rng, reseed, state_tensors

Seeds = list[list[int]]

_DEFAULT_CACHE = 32 * 2**20
_MAX_STACK_ON_CPU = 64
_MIN_STACK_ON_CPU = 32  # where a mapped stack begins to beat one client after the other (measured)


class LocalTraining(Protocol):
    """Moves a stack of clients through their local steps.

    Attributes:
        stack_size: how many clients one call should get; a matter of speed and memory, not of the result.
        needs_seeds: True if the module draws random numbers (dropout), one seed per client and step.
    """

    stack_size: int
    needs_seeds: bool

    def __call__(self, stack: torch.Tensor, rows: torch.Tensor, seeds: Seeds | None) -> None:
        """Train the clients of `stack` [S, P] in place on the examples `rows` [S, steps, batch]."""
        ...


class Descent(Protocol):
    """Moves a tensor of weights by its gradient, in place, step after step; made anew for every client and round."""

    def __call__(self, name: str, weights: torch.Tensor, gradient: torch.Tensor) -> None:
        """The next move of the tensor `name`."""
        ...


class Sgd:
    """Plain descent: `w -= lr * g`."""

    def __init__(self, lr: float) -> None:
        self.lr = lr

    def __call__(self, name: str, weights: torch.Tensor, gradient: torch.Tensor) -> None:
        """One move."""
        weights.add_(gradient, alpha=-self.lr)


class Adam:
    """Adam (Kingma and Ba 2015) as `torch.optim` has it; a client keeps no moments from one round to the next."""

    def __init__(self, lr: float) -> None:
        self.lr = lr
        self._optimizers: dict[str, torch.optim.Adam] = {}

    def __call__(self, name: str, weights: torch.Tensor, gradient: torch.Tensor) -> None:
        """One move."""
        if name not in self._optimizers:
            # Fused is five times faster, but heeds no strides: it would move the weights of other stacked clients.
            self._optimizers[name] = torch.optim.Adam([weights], lr=self.lr, fused=weights.is_contiguous())
        weights.grad = gradient.contiguous()
        self._optimizers[name].step()
        weights.grad = None


DESCENTS: Mapping[str, Callable[[float], Descent]] = MappingProxyType({"sgd": Sgd, "adam": Adam})


class _Problem:
    """What all three share: the module as a template, the data on the device, and where tensors lie in a row."""

    needs_seeds = False

    def __init__(
        self, module: nn.Module, x: torch.Tensor, y: torch.Tensor, lr: float, stack_size: int, optimizer: str = "sgd"
    ) -> None:
        self.module = module.train()
        self.x, self.y, self.lr = x, y, lr
        self.descent = partial(DESCENTS[optimizer], lr)
        self.stack_size = stack_size
        self.where = layout(module)
        self.shapes = {name: tensor.shape for name, tensor in state_tensors(module).items()}
        self.trainable = [name for name, parameter in module.named_parameters() if parameter.requires_grad]

    def views(self, stack: torch.Tensor) -> dict[str, torch.Tensor]:
        """Each tensor of all stacked clients `[S, *shape]`, sharing memory with the stack."""
        return {name: stack[:, self.where[name]].view(len(stack), *self.shapes[name]) for name in self.where}


class Stacked(_Problem):
    """Any module that `torch.func` can map: all clients take each step together, as one program."""

    def __init__(
        self, module: nn.Module, x: torch.Tensor, y: torch.Tensor, lr: float, stack_size: int, optimizer: str = "sgd"
    ) -> None:
        super().__init__(module, x, y, lr, stack_size, optimizer)
        self.counters = {name: b for name, b in module.named_buffers() if not b.is_floating_point()}
        self.gradients = vmap(grad(self._loss, has_aux=True))

    def _loss(
        self, trained: dict[str, torch.Tensor], fixed: dict[str, torch.Tensor], x: torch.Tensor, y: torch.Tensor
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        # Batch normalization writes to its buffers; inside `grad` only copies may be written.
        state = {name: value.clone() for name, value in (fixed | self.counters).items()}
        scores = functional_call(self.module, trained | state, (x,))
        return nn.functional.cross_entropy(scores, y), {name: state[name].detach() for name in fixed}

    def __call__(self, stack: torch.Tensor, rows: torch.Tensor, seeds: Seeds | None) -> None:
        """All clients take each step together."""
        views = self.views(stack)
        trained = {name: views[name] for name in self.trainable}
        fixed = {name: view for name, view in views.items() if name not in trained}
        descend = self.descent()
        for step in range(rows.shape[1]):
            gradients, state = self.gradients(trained, fixed, self.x[rows[:, step]], self.y[rows[:, step]])
            for name, gradient in gradients.items():
                descend(name, trained[name], gradient)
            for name, value in state.items():
                fixed[name].copy_(value)


class Dense(_Problem):
    """Linear layers with ReLU between them: batched matrix products with the SGD step folded into the product.

    The weight gradient never exists as a tensor: `W -= lr * G^T A` is the accumulate of one `baddbmm`.
    """

    def __init__(self, module: nn.Module, x: torch.Tensor, y: torch.Tensor, lr: float, stack_size: int) -> None:
        super().__init__(module, x, y, lr, stack_size)
        self.x = x.flatten(1)
        self.layers = [
            (f"{name}.weight", f"{name}.bias" if layer.bias is not None else None)
            for name, layer in module.named_children()
            if isinstance(layer, nn.Linear)
        ]

    @staticmethod
    def fits(module: nn.Module) -> bool:
        """True for a Sequential of an optional Flatten, then Linear layers with one ReLU between two of them."""
        if type(module) is not nn.Sequential or not all(p.requires_grad for p in module.parameters()):
            return False
        layers = list(module)
        layers = layers[1:] if layers and type(layers[0]) is nn.Flatten else layers
        if len(layers) != len(set(layers)) or any(layer._forward_hooks or layer._forward_pre_hooks for layer in layers):
            return False
        expected = [nn.ReLU if place % 2 else nn.Linear for place in range(len(layers))]
        return len(layers) % 2 == 1 and [type(layer) for layer in layers] == expected

    def __call__(self, stack: torch.Tensor, rows: torch.Tensor, seeds: Seeds | None) -> None:
        """All clients take each step together."""
        views = self.views(stack)
        weights = [views[weight] for weight, _ in self.layers]
        biases = [views[bias] if bias else None for _, bias in self.layers]
        for step in range(rows.shape[1]):
            self._step(weights, biases, self.x[rows[:, step]], self.y[rows[:, step]])

    def _step(
        self, weights: list[torch.Tensor], biases: list[torch.Tensor | None], x: torch.Tensor, y: torch.Tensor
    ) -> None:
        inputs = [x]
        for place, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
            z = torch.bmm(inputs[-1], weight.mT)
            if bias is not None:
                z += bias[:, None]
            inputs.append(z.relu_() if place + 1 < len(weights) else z)
        gradient = torch.softmax(inputs.pop(), dim=-1)
        gradient.scatter_add_(-1, y[..., None], torch.full_like(y[..., None], -1, dtype=gradient.dtype))
        gradient /= y.shape[-1]
        for place in reversed(range(len(weights))):
            below = torch.bmm(gradient, weights[place]).mul_(inputs[place] > 0) if place else None
            weights[place].baddbmm_(gradient.mT, inputs[place], alpha=-self.lr)
            if (bias := biases[place]) is not None:
                bias.sub_(gradient.sum(1), alpha=self.lr)
            if below is not None:
                gradient = below


class OneByOne(_Problem):
    """Any module at all, one client after the other: the plain loop, on the rows' own memory.

    The way for modules that draw random numbers, for those `torch.func` cannot map, and for big models on the CPU,
    where a stack only loses the cache.
    """

    def __init__(
        self,
        module: nn.Module,
        x: torch.Tensor,
        y: torch.Tensor,
        lr: float,
        stack_size: int,
        optimizer: str = "sgd",
        *,
        random: bool = False,
    ) -> None:
        super().__init__(module, x, y, lr, stack_size, optimizer)
        self.needs_seeds = random
        self.counters = {name: b.clone() for name, b in module.named_buffers() if not b.is_floating_point()}

    def __call__(self, stack: torch.Tensor, rows: torch.Tensor, seeds: Seeds | None) -> None:
        """One client takes all its steps, then the next."""
        state = dict(self.module.named_parameters()) | dict(self.module.named_buffers())
        trainable = {name: state[name] for name in self.trainable}
        with private_rng(0, stack.device):
            for client in range(len(stack)):
                for name, view in self.views(stack[client : client + 1]).items():
                    state[name].data = view[0]
                for name, value in self.counters.items():
                    state[name].copy_(value)
                descend = self.descent()
                for step, batch in enumerate(rows[client]):
                    if seeds is not None:
                        reseed(seeds[client][step], stack.device)
                    self._step(descend, trainable, batch)

    def _step(self, descend: Descent, trainable: dict[str, torch.Tensor], batch: torch.Tensor) -> None:
        loss = nn.functional.cross_entropy(self.module(self.x[batch]), self.y[batch])
        gradients = torch.autograd.grad(loss, [*trainable.values()], allow_unused=True)
        with torch.no_grad():
            for (name, parameter), gradient in zip(trainable.items(), gradients, strict=True):
                if gradient is not None:
                    descend(name, parameter, gradient)


def choose(
    module: nn.Module,
    x: torch.Tensor,
    y: torch.Tensor,
    *,
    lr: float,
    batch_size: int,
    clients: int | None = None,
    optimizer: str = "sgd",
) -> LocalTraining:
    """The way to train this module: dense stack, mapped stack, or one by one.

    Args:
        module: the template, on the device of the data.
        x: all training examples, on the device.
        y: their labels, on the device.
        lr: the clients' learning rate.
        batch_size: examples per step, for the estimate of memory.
        clients: clients per stack; None takes what fits the last-level cache (CPU) or the free memory (GPU).
        optimizer: a name of `DESCENTS`; the dense stack knows plain descent only.
    """
    random = _draws_random_numbers(module, x[:2])
    size = clients or _stack_size(module, x, y, batch_size)
    if random:
        return OneByOne(module, x, y, lr, size, optimizer, random=True)
    if optimizer == "sgd" and Dense.fits(module):
        return Dense(module, x, y, lr, size)
    too_big = clients is None and x.device.type == "cpu" and size < _MIN_STACK_ON_CPU
    if not too_big:
        stacked = Stacked(module, x, y, lr, size, optimizer)
        if _can_be_mapped(stacked):
            return stacked
    return OneByOne(module, x, y, lr, size, optimizer)


def _draws_random_numbers(module: nn.Module, x: torch.Tensor) -> bool:
    """True if a forward pass in training mode moves a random generator, as dropout does."""
    counters = [buffer.clone() for buffer in module.buffers()]
    with private_rng(0, x.device), torch.no_grad():
        before = _generator_state(x.device)
        module.train()(x)
        moved = not torch.equal(before, _generator_state(x.device))
        for buffer, value in zip(module.buffers(), counters, strict=True):
            buffer.copy_(value)  # batch normalization has counted the probe
    return moved


def _generator_state(device: torch.device) -> torch.Tensor:
    if device.type == "cuda":
        return torch.cat([torch.random.get_rng_state(), torch.cuda.get_rng_state(device)])
    return torch.random.get_rng_state()


def _can_be_mapped(stacked: Stacked) -> bool:
    """Try one step of two clients; torch.func refuses modules whose flow depends on values, among others."""
    row = torch.cat([tensor.detach().reshape(-1) for tensor in state_tensors(stacked.module).values()])
    rows = torch.zeros(2, 1, 2, dtype=torch.int64, device=row.device)
    try:
        stacked(row.repeat(2, 1), rows, None)
    except Exception:  # whatever torch.func cannot do, the plain loop can
        return False
    return True


def _stack_size(module: nn.Module, x: torch.Tensor, y: torch.Tensor, batch_size: int) -> int:
    """As many clients as the last-level cache holds (CPU), or as 80% of the free memory holds (GPU)."""
    bytes_per_client = _bytes_per_client(module, x[:1].expand(batch_size, *x.shape[1:]))
    if x.device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(x.device)
        return max(1, int(0.8 * free / bytes_per_client))
    return min(max(1, _last_level_cache() // bytes_per_client), _MAX_STACK_ON_CPU)


def _bytes_per_client(module: nn.Module, x: torch.Tensor) -> int:
    """Weights, their gradient, the update, and what one backward pass keeps of its forward pass."""
    kept: dict[int, int] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    weights = sum(tensor.numel() * tensor.element_size() for tensor in state_tensors(module).values())
    owned = {tensor.untyped_storage().data_ptr() for tensor in (*module.parameters(), *module.buffers(), x)}
    buffers = [buffer.clone() for buffer in module.buffers()]
    with private_rng(0, x.device), torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        module.train()(x)
    with torch.no_grad():
        for buffer, value in zip(module.buffers(), buffers, strict=True):
            buffer.copy_(value)
    activations = sum(size for pointer, size in kept.items() if pointer not in owned)
    return 3 * weights + activations


def _last_level_cache() -> int:
    try:
        size = os.sysconf("SC_LEVEL3_CACHE_SIZE")
    except (OSError, ValueError):  # not known on this system
        size = 0
    return size if size > 0 else _DEFAULT_CACHE
