"""The one call for everyone: read the input, check n, screen, plan, run over the blocks, give the same kind back.

A rule is a frozen dataclass that inherits `Rule` and implements two methods, `min_clients` and `plan`. A plan says
what to do with each block of columns; whatever the rule has to know about whole rows before (distances, norms,
weights) it finds out while planning, by reading the same blocks. So every rule streams: memory beside the input is
one block, whether the rows lie in an array, on a GPU or in files larger than memory.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np

from holdfast.aggregation.federations import aggregate_each
from holdfast.aggregation.plans import Given, Plan
from holdfast.aggregation.screening import Screened, like
from holdfast.aggregation.stacking import Block, Rows, Stacked, is_tensor, stack
from holdfast.types import Aggregate, DataError, ThreatModelError


class Rule:
    """What every rule inherits: the call. Subclasses are frozen dataclasses with `min_clients` and `plan`.

    A rule is `coordinate_wise` if its plan reads nothing and its columns treat every column alone, wherever it stands:
    many small federations are then computed at once. If besides it is about as fast as memory, and all values it reads
    go through kernels that add the squares to `squares_of(rows)`, it `vouches`: a clean federation is then read once
    instead of twice.
    """

    coordinate_wise = False
    vouches = False

    def min_clients(self) -> int:
        """The fewest clients the rule's theory allows."""
        return 1

    def plan(self, rows: Screened | Rows, given: Given) -> Plan:
        """Decide how one federation's rows become one vector; `rows` are finite and free of absurd ones."""
        raise TypeError(f"{type(self).__name__} must define plan()")

    def __call__(self, updates: Any) -> Any:
        """The aggregate alone: `[..., d]`, of the kind, dtype and device of the input."""
        stacked = stack(updates)
        require_clients(self, stacked.federations[0].n if stacked.federations else self.min_clients())
        givens = [Given(keep_state=False)] * len(stacked.federations)
        parts = aggregate_each(self, stacked.federations, givens, verdict=False)
        return stacked.give_back([part.value for part in parts])

    def aggregate(
        self,
        updates: Any,
        *,
        state: Any = None,
        weights: Any = None,
        layout: Sequence[slice] | None = None,
        reference: Any = None,
        clients: Sequence[Hashable] | None = None,
        faults: Mapping[int, str] | None = None,
    ) -> Aggregate:
        """Aggregate with the verdict.

        Args:
            updates: a list of vectors, an array or a tensor `[..., n, d]`; see `holdfast.aggregation.stacking.stack`.
            state: the `state` of the last round's result, for rules that keep one.
            weights: `[..., n]` reported weights; used by the rules that say so, capped there.
            layout: slices of `d` that are layers, for rules that treat layers apart.
            reference: `[d]` or `[..., d]`, the last global model or update.
            clients: `[n]` ids that stay with a client between rounds; positions by default.
            faults: clients whose update is known to be unusable, by position, and why; they are replaced.

        Returns:
            The value, each client's influence, who was replaced (and why, in `diagnostics["replaced"]`), and the
            state for the next round. A replaced client's influence is that of the neutral row standing in for it.
            With leading axes, state and every diagnostic are tuples with one entry per federation in C order.

        Raises:
            DataError: the input is not one row of real numbers per client, or what comes with it does not fit.
            ThreatModelError: fewer clients than the rule's theory needs.
        """
        stacked = stack(updates)
        n = stacked.federations[0].n if stacked.federations else self.min_clients()
        require_clients(self, n)
        givens = _givens(stacked, state, weights, layout, reference, clients)
        return _joined(stacked, aggregate_each(self, stacked.federations, givens, faults=faults, verdict=True))


def require_clients(rule: Rule, n: int) -> None:
    """Refuse fewer clients than the rule's theory needs."""
    needed = rule.min_clients()
    if n < needed:
        f = getattr(rule, "f", None)
        against = "" if f is None else f" against f = {f} malicious ones"
        raise ThreatModelError(f"{rule!r} needs n >= {needed} clients{against}, got n = {n}")


def _joined(stacked: Stacked, parts: Sequence[Aggregate]) -> Aggregate:
    if not stacked.batch:
        only = parts[0]
        state, diagnostics = only.state, only.diagnostics
    else:
        state = tuple(part.state for part in parts)
        state = None if all(s is None for s in state) else state
        keys = parts[0].diagnostics if parts else ()
        diagnostics = {key: tuple(part.diagnostics[key] for part in parts) for key in keys}
    influence = [part.client_weights for part in parts]
    known = all(w is not None for w in influence)
    return Aggregate(
        value=stacked.give_back([part.value for part in parts]),
        client_weights=stacked.give_back(influence, dtype=np.float64) if known else None,
        replaced=stacked.give_back([part.replaced for part in parts], dtype=bool),
        state=state,
        diagnostics=diagnostics,
    )


def _givens(
    stacked: Stacked,
    state: Any,
    weights: Any,
    layout: Sequence[slice] | None,
    reference: Any,
    clients: Sequence[Hashable] | None,
) -> list[Given]:
    """What came along, checked and dealt out to the federations."""
    if not stacked.federations:
        return []
    n, d = stacked.federations[0].n, stacked.federations[0].d
    count = len(stacked.federations)
    ids = tuple(range(n)) if clients is None else tuple(clients)
    if len(ids) != n or len(set(ids)) != n:
        raise DataError(f"clients must be {n} different ids, one per row, got {len(ids)} ({len(set(ids))} different)")
    shares = [None] * count if weights is None else list(checked_weights(weights, (*stacked.batch, n)).reshape(-1, n))
    references = [None] * count if reference is None else _references(reference, stacked.batch, d)
    if stacked.batch and state is not None and len(state) != count:
        raise DataError(f"state must have one entry for each of the {count} federations, got {len(state)}")
    states = [None] * count if state is None else list(state) if stacked.batch else [state]
    return [Given(states[i], shares[i], references[i], ids, layout) for i in range(count)]


def checked_weights(weights: Any, shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
    """Reported weights as float64 of the given shape (broadcast from `[n]`), or one sentence on what is wrong."""
    array = np.asarray(weights.detach().cpu() if is_tensor(weights) else weights, dtype=np.float64)
    if array.shape not in (shape, shape[-1:]):
        raise DataError(f"weights must have shape {shape}, one per client, got {array.shape}")
    if not np.isfinite(array).all() or (array < 0).any():
        worst = array[~np.isfinite(array) | (array < 0)].flat[0]
        raise DataError(f"weights must be finite and not negative, got {worst}")
    return np.broadcast_to(array, shape)


def _references(reference: Any, batch: tuple[int, ...], d: int) -> list[Any]:
    shaped: Any = reference.detach() if is_tensor(reference) else np.asarray(reference)
    if tuple(shaped.shape) not in ((d,), (*batch, d)):
        raise DataError(f"reference must have shape {(*batch, d)}, one number per parameter, got {tuple(shaped.shape)}")
    total = shaped.double().sum().item() if is_tensor(shaped) else float(np.sum(shaped, dtype=np.float64))
    if not np.isfinite(total):
        raise DataError("reference must be finite: it is the server's own last model or update")
    if shaped.ndim == 1:
        return [shaped] * max(1, int(np.prod(batch)))
    return list(shaped.reshape(-1, d))


def reference_block(reference: Any, where: slice, block: Block) -> Block:
    """The reference for a block of columns, as the block's kind; zeros where there is none."""
    if reference is None:
        return block.new_zeros(block.shape[1]) if is_tensor(block) else np.zeros(block.shape[1], dtype=block.dtype)
    return like(reference[where], block)
