"""Directed deviation of Fang, Cao, Jia, Gong 2020 (UPA): push the aggregate against the way it wanted to go.

The attackers estimate `s`, the sign of the change the global model is about to make, and upload what moves the given
rule the other way. With knowledge "own" every estimate uses the attackers' rows before the attack. Exact definitions
follow the attack family that the Romoa paper (§2.2) calls UPA.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from holdfast.attacks.view import Array, Knowledge, ModelAttack, View, check_knowledge
from holdfast.types import ConfigError


def changing_direction(view: View) -> Array:
    """`s` `[..., d]`: the signs of the mean of all rows the attackers see, as they were before the attack."""
    return np.asarray(np.sign(view.before.mean(axis=-2)))


@dataclass(frozen=True)
class UPAMean(ModelAttack):
    """Reverse plain averaging: the mean of all uploads becomes `-lam` times what it would have been.

    `upload = (-lam * sum_all U - sum_honest U) / f`. Knowledge "own" estimates both sums from the attackers' rows.

    Example:
        >>> import numpy as np
        >>> honest, own = np.array([[1.0], [2.0]]), np.array([[3.0]])
        >>> malicious = UPAMean()(honest, 1, own=own, rng=np.random.default_rng(0))
        >>> np.concatenate([honest, malicious]).mean()  # the honest mean is 2
        np.float64(-2.0)
    """

    lam: float = 1.0
    knowledge: Knowledge = "all"

    def __post_init__(self) -> None:
        if self.lam < 0:
            raise ConfigError(f"lam={self.lam} does not reverse the step; it must be at least 0")
        check_knowledge("upa-mean", self.knowledge, ("own", "all"))

    def craft(self, view: View, rng: np.random.Generator) -> Array:
        """The reversing update, the same for every attacker."""
        mine = view.mine
        honest_sum = (view.n - view.f) * mine.mean(axis=-2) if view.honest is None else view.honest.sum(axis=-2)
        return view.repeat((-self.lam * (honest_sum + mine.sum(axis=-2)) - honest_sum) / view.f)


@dataclass(frozen=True)
class UPATrimmedMean(ModelAttack):
    """Crowd the far end of every coordinate, against the trimmed mean and the median.

    Where the mean falls (s = -1) upload values above the largest honest one, where it rises below the smallest:
    uniform in `[max, b*max]` (`[max, max/b]` if max <= 0), and mirrored `[min/b, min]` (`[b*min, min]`).
    Knowledge "own": uniform between 3 and 4 standard deviations from the mean of the attackers' rows (one attacker:
    the magnitude of its value stands in for the deviation).

    Args:
        b: how far beyond the honest range, above 1.
        space: "model": the values are parameters, as in the paper; "update": their changes, a much milder attack.
        knowledge: "all" (full) or "own" (partial).

    Example:
        >>> import numpy as np
        >>> honest = np.array([[-1.0], [-2.0]])
        >>> UPATrimmedMean(space="update")(honest, 1, rng=np.random.default_rng(0)) >= -1.0
        array([[ True]])
    """

    b: float = 2.0
    space: Literal["model", "update"] = "model"
    knowledge: Knowledge = "all"

    def __post_init__(self) -> None:
        if self.b <= 1:
            raise ConfigError(f"b={self.b} leaves no room beyond the honest range; it must be above 1")
        if self.space not in ("model", "update"):
            raise ConfigError(f'space={self.space!r} is unknown; choose "model" or "update"')
        check_knowledge("upa-trimmed-mean", self.knowledge, ("own", "all"))

    def interval(self, view: View, signs: Array | None = None) -> tuple[Array, Array]:
        """Lower and upper end `[..., d]` of every coordinate, in the chosen space.

        `signs`: s where it is known otherwise (say from earlier global models); None: estimated from the rows seen.
        """
        base = view.reference if self.space == "model" else np.zeros_like(view.reference)
        falling = (changing_direction(view) if signs is None else signs) < 0
        rows = view.peers + base
        if view.honest is None:
            center = rows.mean(axis=-2)
            spread = rows.std(axis=-2) if rows.shape[-2] > 1 else np.abs(center)
            return (
                np.where(falling, center + 3 * spread, center - 4 * spread),
                np.where(falling, center + 4 * spread, center - 3 * spread),
            )
        top, bottom, b = rows.max(axis=-2), rows.min(axis=-2), self.b
        low = np.where(falling, top, np.where(bottom > 0, bottom / b, b * bottom))
        high = np.where(falling, np.where(top > 0, b * top, top / b), bottom)
        return low, high

    def craft(self, view: View, rng: np.random.Generator) -> Array:
        """An independent draw for every attacker and coordinate."""
        low, high = (end[..., None, :] for end in self.interval(view))
        draws = rng.random(view.mine.shape).astype(view.mine.dtype)
        values = low + (high - low) * draws
        return np.asarray(values - view.reference if self.space == "model" else values)


def krum_choice(rows: Array, f: int) -> int:
    """The row Krum selects from `[n, d]`: least sum of squared distances to its n-f-2 nearest (at least 1) others."""
    squared = _squared(rows, rows)
    np.fill_diagonal(squared, np.inf)
    nearest = np.sort(squared, axis=1)[:, : max(1, len(rows) - f - 2)]
    return int(nearest.sum(axis=1).argmin())


@dataclass(frozen=True)
class UPAKrum(ModelAttack):
    """Upload `-lam * s` from every attacker, with the largest lam (by halving) at which Krum selects an attacker.

    lam starts at the bound of Fang et al. (Theorem 1): `min over honest of the sum of its n-f-2 smallest distances to
    honest rows / (max(1, n-2f-1) sqrt(d)) + max honest length / sqrt(d)`, and halves until Krum picks an attacker or
    lam < stop; the last one is uploaded either way. Knowledge "own" plays the game among the attackers' rows, with
    one, two, ... simulated attackers until Krum picks one.

    Args:
        stop: where the search gives up.
        knowledge: "all" (full) or "own" (partial).

    Example:
        >>> import numpy as np
        >>> honest = np.random.default_rng(1).normal(0.1, 1.0, (6, 4))
        >>> malicious = UPAKrum()(honest, 3, rng=np.random.default_rng(0))
        >>> krum_choice(np.concatenate([honest, malicious]), 3) >= 6
        True
    """

    stop: float = 1e-5
    knowledge: Knowledge = "all"

    def __post_init__(self) -> None:
        if self.stop <= 0:
            raise ConfigError(f"stop={self.stop} never ends the search; it must be above 0")
        check_knowledge("upa-krum", self.knowledge, ("own", "all"))

    def trace(self, honest: Array, signs: Array, f: int) -> list[tuple[float, int]]:
        """Every lam tried on rows `[m, d]` with f equal attackers, with the row Krum then selects (>= m: attacked)."""
        lam, tried = starting_strength(honest, f), []
        # Distances among honest rows do not depend on lam; only the attackers' vector moves.
        among = _squared(honest, honest)
        np.fill_diagonal(among, np.inf)
        neighbors = max(1, len(honest) - 2)
        while True:
            pick = _pick_against(honest, among, -lam * signs, f, neighbors)
            tried.append((lam, pick))
            if pick >= len(honest) or lam < self.stop:
                return tried
            lam /= 2

    def craft(self, view: View, rng: np.random.Generator) -> Array:
        """The reversed signs at the strength found, the same for every attacker; one search per federation."""
        signs = changing_direction(view)
        rows = view.peers.reshape(-1, *view.peers.shape[-2:])
        flat = signs.reshape(-1, signs.shape[-1])
        strengths = np.array([self._strength(view, r, s) for r, s in zip(rows, flat, strict=True)], dtype=signs.dtype)
        return view.repeat(-strengths.reshape(*signs.shape[:-1], 1) * signs)

    def _strength(self, view: View, rows: Array, signs: Array) -> float:
        if view.honest is not None:
            return self.trace(rows, signs, view.f)[-1][0]
        lam = 0.0
        for simulated in range(1, len(rows) + 2):
            lam, pick = self.trace(rows, signs, simulated)[-1]
            if pick >= len(rows):
                break
        return lam


def starting_strength(honest: Array, f: int) -> float:
    """Upper bound on lam for honest rows `[m, d]` and f attackers (m + f clients)."""
    n, d = len(honest) + f, honest.shape[1]
    distances = np.sqrt(_squared(honest, honest))
    np.fill_diagonal(distances, np.inf)
    nearest = np.sort(distances, axis=1)[:, : min(max(1, n - f - 2), len(honest) - 1)]
    closest = nearest.sum(axis=1).min() if nearest.size else 0.0
    length = np.linalg.norm(honest.astype(np.float64), axis=1).max()
    return float(closest / (max(1, n - 2 * f - 1) * np.sqrt(d)) + length / np.sqrt(d))


def _pick_against(honest: Array, among: Array, malicious: Array, f: int, neighbors: int) -> int:
    """Krum's pick from honest rows and f copies of one malicious vector; honest rows win ties (they come first)."""
    count = len(honest)
    across = _squared(honest, malicious[None])[:, 0]
    table = np.concatenate([among, np.repeat(across[:, None], f, axis=1)], axis=1)
    attacker = np.concatenate([np.zeros(f - 1), np.sort(across)])
    honest_best = np.sort(table, axis=1)[:, :neighbors].sum(axis=1)
    pick = int(honest_best.argmin())
    return pick if honest_best[pick] <= attacker[:neighbors].sum() else count


def _squared(a: Array, b: Array) -> Array:
    """`[n, m]` squared distances in float64, by subtraction."""
    wide = b.astype(np.float64)
    return np.stack([np.sum((row.astype(np.float64) - wide) ** 2, axis=1) for row in a])
