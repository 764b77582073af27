"""FoolsGold: clients whose histories of updates point the same way share one say."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass

import numpy as np

from holdfast.aggregation.averaging import weighted_mean
from holdfast.aggregation.calling import Rule, reference_block
from holdfast.aggregation.distance import Matrix, reference_gram
from holdfast.aggregation.parameters import check_number
from holdfast.aggregation.plans import Given, Plan
from holdfast.aggregation.stacking import Block, MemoryRows, Rows, block_columns, is_tensor
from holdfast.types import DataError

ROUNDING = 1e-6
"""Cosines this close to 1 are 1: what float32 products leave of identical rows."""


@dataclass(frozen=True)
class FoolsGold(Rule):
    r"""Weigh clients down by how similar the direction of their summed updates is to another client's.

    Formula: $H_i = \sum_t x_i^{(t)}$, $c_{ij} = \cos(H_i, H_j)$, $m_i = \max_{j \ne i} c_{ij}$; pardoning scales
    $c_{ij}$ by $m_i / m_j$ where $m_j > m_i$; $a_i = 1 - \max_j c_{ij}$, divided by the largest; logit
    $a_i \leftarrow \kappa (\ln \frac{a_i}{1 - a_i} + \frac{1}{2})$, cut to [0, 1]; $v = \sum_i a_i x_i / \sum_i a_i$.
    If every client is somebody's copy, all count alike.

    Shapes: `[..., n, d]` to `[..., d]`. Rows are updates; directions are taken about `reference` if one is given.
    `state` maps each client id ever seen to its history $H$; pass it on, with `clients=` naming the rows.
    `diagnostics["similarity"]` holds $m$.

    Tolerates: any number of sybils that push the same direction, as long as honest clients differ from one another.

    Fails: on honest clients with similar data (few classes, IID): they look like sybils, and a single attacker who
    differs from all gets the largest say. It bounds no outlier: one huge row that is unlike the others stays. Colluders
    who decorrelate their updates pass.

    Cost: two passes; O(n^2 d) multiplications; the history needs O(clients d) memory, a call without state none.

    Args:
        kappa: confidence of the logit.

    Raises:
        ConfigError: `kappa` not above 0.

    Example:
        >>> result = FoolsGold().aggregate([[1.0, 0.0], [0.0, 1.0], [-1.0, -1.0], [-1.0, -1.0]], clients="abcd")
        >>> result.client_weights
        array([0.5, 0.5, 0. , 0. ])
        >>> sorted(result.state)
        ['a', 'b', 'c', 'd']

    Paper: Fung, Yoon and Beschastnikh, "The Limitations of Federated Learning in Sybil Settings", RAID 2020,
    Algorithm 1 (without its optional per-feature importance).
    """

    kappa: float = 1.0

    def __post_init__(self) -> None:
        check_number(self, "kappa", above=True)

    def min_clients(self) -> int:
        """One."""
        return 1

    def plan(self, rows: Rows, given: Given) -> Plan:
        """Weigh the rows by their histories."""
        if given.state or given.keep_state:
            history = _updated_history(rows, given)
            vectors = [history[client] for client in given.clients]
            gram = reference_gram(MemoryRows(vectors, rows.n, rows.d, rows.dtype), None)
        else:
            history, gram = None, reference_gram(rows, given.reference)
        trust, similarity = foolsgold_trust(gram, self.kappa)
        return weighted_mean(trust, state=history, diagnostics={"similarity": similarity})


def foolsgold_trust(gram: Matrix, kappa: float) -> tuple[Matrix, Matrix]:
    """Weights that sum to 1, and each client's largest cosine to another, from a Gram matrix of histories."""
    n = len(gram)
    if n == 1:
        return np.ones(1), np.zeros(1)
    norms = np.sqrt(np.maximum(np.diagonal(gram), 0.0))
    inverse = np.divide(1.0, norms, out=np.zeros(n), where=norms > 0)
    cosines = np.clip(gram * inverse[:, None] * inverse[None, :], -1.0, 1.0)
    np.fill_diagonal(cosines, -1.0)
    largest = cosines.max(axis=1)
    mine, theirs = largest[:, None], largest[None, :]
    pardon = np.divide(mine, theirs, out=np.ones((n, n)), where=(theirs > mine) & (mine > 0))
    trust = np.clip(1.0 - (cosines * pardon).max(axis=1), 0.0, 1.0)
    trust[trust < ROUNDING] = 0.0
    if trust.max() == 0.0:
        return np.full(n, 1 / n), largest
    trust = trust / trust.max()
    with np.errstate(divide="ignore"):
        trust = np.clip(kappa * (np.log(trust) - np.log1p(-trust) + 0.5), 0.0, 1.0)
    return trust / trust.sum(), largest


def _updated_history(rows: Rows, given: Given) -> Mapping[Hashable, Block]:
    """Every client's summed updates: new vectors for who is here, the old ones for who is not."""
    history = dict(given.state or {})
    for client, past in history.items():
        if len(past) != rows.d:
            raise DataError(f"state must hold histories of {rows.d} numbers, got {len(past)} for client {client!r}")
    sums: dict[int, Block] = {}
    for where, block in rows.blocks(block_columns(rows)):
        for i, client in enumerate(given.clients):
            if i not in sums:
                sums[i] = block.new_zeros(rows.d) if is_tensor(block) else np.zeros(rows.d, dtype=block.dtype)
            sums[i][where] = block[i]
            if given.reference is not None:
                sums[i][where] -= reference_block(given.reference, where, block)
            if client in history:
                sums[i][where] += reference_block(history[client], where, block)
    return history | {client: sums.get(i, np.zeros(0)) for i, client in enumerate(given.clients)}
