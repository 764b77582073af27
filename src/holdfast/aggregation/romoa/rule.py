"""Romoa (Mao, Yuan, Zhao, Zhong 2021): every parameter of every participant weighted by how it resembles the others."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from holdfast.aggregation import columns as column_wise
from holdfast.aggregation.calling import Rule, _givens, reference_block
from holdfast.aggregation.parameters import check_choice, check_count, check_flag, check_number
from holdfast.aggregation.plans import Given, Plan
from holdfast.aggregation.romoa.factors import Scoring, Sided, Units, capped, clip_factors, shares
from holdfast.aggregation.romoa.measures import gathered, pieces
from holdfast.aggregation.romoa.state import layer_bounds, layer_of
from holdfast.aggregation.romoa.step import Step, advance
from holdfast.aggregation.screening import Screened, like, screen
from holdfast.aggregation.stacking import Block, Rows, is_tensor, stack
from holdfast.types import ConfigError

Array = NDArray[Any]
Pearson = Literal["standard", "printed", "both", "none"]

PRESETS: dict[str, dict[str, Any]] = {
    "default": {
        "sided": "two",
        "pearson": "standard",
        "units": "window",
        "sharpness": 1.0,
        "cap": True,
        "clip": 2.0,
    },
    "paper-momentum": {
        "sided": "two",
        "pearson": "standard",
        "units": "window",
        "sharpness": 1.0,
        "cap": False,
        "clip": math.inf,
    },
    "raw10": {
        "sided": "two",
        "pearson": "standard",
        "units": "raw",
        "sharpness": 10.0,
        "cap": False,
        "clip": math.inf,
    },
    "literal": {
        "sided": "one",
        "pearson": "printed",
        "units": "raw",
        "sharpness": 1.0,
        "cap": False,
        "clip": math.inf,
    },
}


@dataclass(frozen=True)
class Romoa(Rule):
    r"""Weights per parameter from the likeness of each update with the common one, with memory.

    Formula: with $U_i$ the updates and $m$ their mean, per layer $L_i = \cos(U_i, m)$, $P_i = \mathrm{corr}(U_i, m)$
    and per selected parameter $S_{iw} = U_{iw} m_w / (\lVert U_i \rVert \lVert m \rVert)$; the score is the distance
    of each from the mode of all participants, $f = -|L - c| / h$; $W = \mathrm{softmax}_i(\min f)$;
    $F \leftarrow \beta W + (1 - \beta) F$; $v = \sum_i A_i s_i U_i$ with $A = \min(F, W)$, normalized (`cap`) or F,
    and $s_i = \min(1, \mathrm{clip} \cdot \mathrm{median}_j \lVert U_j \rVert / \lVert U_i \rVert)$.

    Shapes: `[..., n, d]` to `[..., d]`. Rows are updates, or models with `reference` the last synced model (the
    selection is then by the size of the models' parameters, as published). `layout` names the layers (weight and
    bias of a module together). `aggregate` is the syncing step; servers that see every local step call `lookahead`
    for the others. `client_weights` is A averaged over the parameters; `diagnostics` has "clip_factor",
    "factors" and "suppressed" (client: step since when).

    Tolerates: fewer than n/2 colluders in experiments. There is no proof: the paper's Theorem 1 is about a game with
    an abstract price, not about this rule.

    Fails: on colluders at the honest angle and length (mild or disguised poison keeps some effect), on very skewed
    data (it costs accuracy and mutes rare labels), in the first steps, and at half attackers or more. The presets
    but "default" have two known holes: honest until the syncing step, and far too long updates. "literal", the
    equations as printed, is **not a defense**.

    Cost: two passes, O(n d); the element-wise term adds six (nine in float64) and O(n * selected) memory, and
    changes next to nothing: turn it off for large models. Uploading every local step costs tau times the traffic.

    Args:
        preset: "default", "paper-momentum", "raw10" or "literal"; sets the parameters left at None.
        beta: share of this step in the memory (the residual rate).
        select_ratio: share of the parameters each participant selects; None: 1/n.
        elementwise: measure single parameters too.
        sharpness: factor in the softmax.
        sided: "two": unlike in either direction is bad; "one" (printed): being above the mode is free.
        pearson: "standard", "printed" (eq. 7 as it stands), "both" or "none".
        units: "window" divides distances by the width of the majority; "raw" does not.
        min_window: least width.
        cap: nobody weighs more at a syncing step than that step earns.
        clip: no update counts as longer than this many median lengths; `math.inf`: no bound.
        min_layer: layers with fewer parameters join their neighbor.

    Raises:
        ConfigError: a parameter out of range, a layout that does not cover d, the state of another federation.

    Example:
        >>> rows = [[1.0, 2.0, 3.0], [1.1, 2.0, 3.1], [0.9, 2.1, 2.9], [-9.0, -9.0, -9.0]]
        >>> Romoa().aggregate(rows).client_weights.round(2)
        array([0.41, 0.28, 0.3 , 0.  ])

    Paper: Mao, Yuan, Zhao and Zhong, "Romoa: Robust Model Aggregation for the Resistance of Federated Learning to
    Model Poisoning Attacks", ESORICS 2021, Eq. 4-11 and Algorithm 2, with the repairs described in docs/romoa.md.
    """

    preset: str = "default"
    beta: float = 0.5
    select_ratio: float | None = None
    elementwise: bool = True
    sharpness: float | None = None
    sided: Sided | None = None
    pearson: Pearson | None = None
    units: Units | None = None
    min_window: float = 0.01
    cap: bool | None = None
    clip: float | None = None
    min_layer: int = 8

    def __post_init__(self) -> None:
        check_choice(self, "preset", tuple(PRESETS))
        for name, value in PRESETS[self.preset].items():
            if getattr(self, name) is None:
                object.__setattr__(self, name, value)
        check_choice(self, "sided", ("two", "one"))
        check_choice(self, "pearson", ("standard", "printed", "both", "none"))
        check_choice(self, "units", ("window", "raw"))
        check_number(self, "beta", above=True)
        if self.beta > 1:
            raise ConfigError(f"Romoa: beta must be a number above 0 and at most 1, got {self.beta:g}")
        check_number(self, "select_ratio", above=True, optional=True)
        check_number(self, "sharpness", above=True)
        check_number(self, "min_window", above=True)
        check_number(self, "clip", above=True, infinite=True)
        check_flag(self, "cap")
        check_flag(self, "elementwise")
        check_count(self, "min_layer", least=1)

    def min_clients(self) -> int:
        """One; with two there is no majority and no defense."""
        return 1

    def lookahead(
        self,
        uploads: Any,
        *,
        state: Any = None,
        layout: Sequence[slice] | None = None,
        reference: Any = None,
        clients: Sequence[Hashable] | None = None,
        faults: Mapping[int, str] | None = None,
    ) -> Any:
        """Watch a local step without aggregating: the memory after it, to be passed on.

        Arguments as for `aggregate`; with leading axes a tuple, one memory per federation.

        Example:
            >>> rows = [[1.0, 2.0], [1.1, 2.0], [0.9, 2.1], [-9.0, -9.0]]
            >>> rule = Romoa()
            >>> rule.lookahead(rows, state=rule.lookahead(rows)).suppressed()
            {3: 1}
        """
        stacked = stack(uploads)
        states = []
        for rows, given in zip(
            stacked.federations, _givens(stacked, state, None, layout, reference, clients), strict=True
        ):
            with np.errstate(over="ignore", under="ignore"):
                screened = screen(rows, reference=given.reference, faults=faults)
                states.append(self._advance(screened, given).state)
        return tuple(states) if stacked.batch else states[0]

    def plan(self, rows: Screened | Rows, given: Given) -> Plan:
        """Take the step, then weigh."""
        step = self._advance(rows, given)
        sample = step.rows
        if step.singles is None:
            return Plan(
                lambda where, block: reference_block(given.reference, where, block),
                influence=np.full(rows.n, 1.0 / rows.n),
                state=step.state,
            )
        clipping = np.ones(rows.n)
        clipping[step.usable] = clip_factors(step.norms[step.usable], float(self.clip or math.inf))
        state, bounds = step.state, np.array(step.state.bounds)
        layers = self._shares(state.layers[sample], step.weights, step.usable)
        own = np.bincount(layer_of(state.indices, bounds), minlength=len(bounds) - 1)
        influence = layers @ (np.diff(bounds) - own)
        singles = np.empty(len(state.indices))
        for part, updates in gathered(rows, given.reference, state.indices):
            earned = step.singles.weights(state.indices[part], layer_of(state.indices[part], bounds), updates)
            share = self._shares(state.elements[sample, part], earned, step.usable)
            influence += share.sum(axis=1)
            singles[part] = np.einsum("ik,ik->k", updates, share * clipping[:, None], dtype=np.float64)
        return Plan(
            _weighted(layers * clipping[:, None], singles, state.indices, bounds, given.reference),
            influence=influence / max(1, state.d),
            narrow=True,
            state=state if given.keep_state else None,
            diagnostics={
                "clip_factor": clipping,
                "factors": state.layers[sample],
                "suppressed": state.suppressed(),
            },
        )

    def _advance(self, rows: Screened | Rows, given: Given) -> Step:
        bad = getattr(rows, "bad", np.zeros(rows.n, dtype=bool))
        ratio = 1.0 / rows.n if self.select_ratio is None else self.select_ratio
        count = min(rows.d, max(1, math.floor(ratio * rows.d + 0.5))) if self.elementwise else 0
        return advance(
            rows,
            ~bad,
            reference=given.reference,
            clients=given.clients or tuple(range(rows.n)),
            state=given.state,
            bounds=layer_bounds(given.layout, rows.d, self.min_layer),
            scoring=Scoring(self.sharpness, self.sided, self.pearson, self.units, self.min_window),  # type: ignore[arg-type]
            beta=self.beta,
            select_count=count,
        )

    def _shares(self, factors: Array, weights: Array, usable: Array) -> Array:
        """A `[n, columns]`: what each participant weighs at a syncing step; 0 for who sent nothing usable."""
        full = np.zeros(factors.shape)
        if self.cap:
            full[usable] = capped(factors[usable], weights[usable])
        else:
            full[usable] = shares(factors[usable])
        return full


def _weighted(layers: Array, singles: Array, indices: Array, bounds: Array, reference: Any) -> Any:
    """The weighted sum of the updates for a block of columns, about the reference; at some columns it is known."""

    def columns(where: slice, block: Block) -> Block:
        base = None if reference is None else reference_block(reference, where, block)
        moved = block if base is None else block - base
        value = moved.new_empty(moved.shape[1]) if is_tensor(moved) else np.empty(moved.shape[1], moved.dtype)
        for layer, part in pieces(where, bounds):
            value[part] = column_wise.weighted_sum(moved[:, part], layers[:, layer])
        begin, end = np.searchsorted(indices, [where.start, where.stop])
        if end > begin:
            value[indices[begin:end] - where.start] = like(singles[begin:end], value)
        return value if base is None else value + base

    return columns
