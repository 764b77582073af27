"""Attacks that stay inside the spread of the honest updates."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.stats import norm

from holdfast.attacks.view import Array, Knowledge, ModelAttack, View, check_knowledge
from holdfast.types import ConfigError

Direction = Literal["mean", "std", "sign"]


def unit(vectors: Array) -> Array:
    """Vectors along the last axis at length one; zero stays zero."""
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.asarray(np.divide(vectors, length, out=np.zeros_like(vectors), where=length > 0))


def perturbation(rows: Array, direction: Direction) -> Array:
    """The direction `[..., d]` that hurts: against the mean (unit length), the spread, or the signs of the mean."""
    mean = rows.mean(axis=-2)
    if direction == "mean":
        return -unit(mean)
    return np.asarray(-rows.std(axis=-2) if direction == "std" else -np.sign(mean))


def _check_direction(direction: str) -> None:
    if direction not in ("mean", "std", "sign"):
        raise ConfigError(f'direction={direction!r} is unknown; choose "mean", "std" or "sign"')


@dataclass(frozen=True)
class InnerProductManipulation(ModelAttack):
    """Upload `-epsilon * mean` of the honest updates (Xie, Koyejo, Gupta 2019, §4).

    A small epsilon stays close to the honest rows and still turns the inner product of the robust aggregate with the
    true mean negative; with epsilon > (n-f)/f plain averaging goes backwards.

    Example:
        >>> import numpy as np
        >>> InnerProductManipulation(epsilon=0.5)(np.ones((3, 2)), 1, rng=np.random.default_rng(0))
        array([[-0.5, -0.5]])
    """

    epsilon: float = 0.1
    knowledge: Knowledge = "all"

    def __post_init__(self) -> None:
        if self.epsilon <= 0:
            raise ConfigError(f"epsilon={self.epsilon} does not turn the update; it must be above 0")
        check_knowledge("inner-product-manipulation", self.knowledge, ("own", "all"))

    def craft(self, view: View, rng: np.random.Generator) -> Array:
        """The reversed mean of the rows seen."""
        return view.repeat(-self.epsilon * view.peers.mean(axis=-2))


@dataclass(frozen=True)
class ALittleIsEnough(ModelAttack):
    """Shift every coordinate by z standard deviations: `mean - z * std` (Baruch, Baruch, Goldberg 2019, Alg. 3).

    z is the largest shift at which, under a normal distribution, enough honest clients are still farther out to give
    the attackers a majority: `s = floor(n/2 + 1) - f` supporters are needed, so `z = Phi^-1((N - s) / N)`.

    Args:
        z: the shift; None: from the quantile.
        population: what the s supporters are counted among. "honest": N = n - f, they are honest clients; "all":
            N = n, a slightly larger z (1.75 for n=50, f=24).
        knowledge: "all": statistics of the honest rows; "own": of the attackers' rows, as in the paper.

    Example:
        >>> round(ALittleIsEnough(population="all").shift(50, 24), 2)
        1.75
    """

    z: float | None = None
    population: Literal["honest", "all"] = "honest"
    knowledge: Knowledge = "all"

    def __post_init__(self) -> None:
        if self.population not in ("honest", "all"):
            raise ConfigError(f'population={self.population!r} is unknown; choose "honest" or "all"')
        check_knowledge("a-little-is-enough", self.knowledge, ("own", "all"))

    def shift(self, n: int, f: int) -> float:
        """The shift z; never below 0, and finite when the attackers are a majority already."""
        if self.z is not None:
            return self.z
        supporters = max(1, n // 2 + 1 - f)
        population = max(1, n - f if self.population == "honest" else n)
        return float(norm.ppf(max(0.5, (population - supporters) / population)))

    def craft(self, view: View, rng: np.random.Generator) -> Array:
        """The shifted mean, the same for every attacker."""
        rows = view.peers
        return view.repeat(rows.mean(axis=-2) - self.shift(view.n, view.f) * rows.std(axis=-2))


@dataclass(frozen=True)
class _WithinDistance(ModelAttack):
    """Go from the mean along a direction as far as a bound on distances allows.

    |mean + g*p - u_i|² is a quadratic in g for every row, so the largest g is a root: no search, no tolerance.
    """

    direction: Direction = "std"
    knowledge: Knowledge = "all"

    def __post_init__(self) -> None:
        _check_direction(self.direction)
        check_knowledge("min-max and min-sum", self.knowledge, ("own", "all"))

    def strength(self, rows: Array) -> Array:
        """The largest gamma `[...]` for honest rows `[..., n, d]`; 0 where the direction is zero."""
        path = perturbation(rows, self.direction).astype(np.float64)
        offset = rows.mean(axis=-2, keepdims=True) - rows.astype(np.float64)
        squared = _squared_distances(rows)
        quadratic = np.sum(path**2, axis=-1)
        linear = np.einsum("...d,...id->...i", path, offset)
        constant = np.sum(offset**2, axis=-1)
        return np.asarray(self._largest(quadratic, linear, constant, squared))

    @abstractmethod
    def _largest(self, quadratic: Array, linear: Array, constant: Array, squared: Array) -> Array:
        """The largest g within the bound, from the coefficients per row and the honest squared distances."""

    def craft(self, view: View, rng: np.random.Generator) -> Array:
        """The farthest point allowed, the same for every attacker."""
        rows = view.peers
        path = perturbation(rows, self.direction)
        gamma = self.strength(rows)[..., None].astype(path.dtype)
        return view.repeat(rows.mean(axis=-2) + gamma * path)


@dataclass(frozen=True)
class MinMax(_WithinDistance):
    """`mean + gamma * p`, gamma the largest with `max_i |m - u_i| <= max_ij |u_i - u_j|` (Shejwalkar, Houmansadr 2021).

    The upload is no farther from any honest update than two honest updates are from each other.

    Args:
        direction: p: "std" (the authors' strongest), "mean" (unit length) or "sign".
        knowledge: "all" or "own".

    Example:
        >>> import numpy as np
        >>> MinMax(direction="sign")(np.array([[0.0], [2.0], [4.0]]), 1, rng=np.random.default_rng(0))
        array([[0.]])
    """

    def _largest(self, quadratic: Array, linear: Array, constant: Array, squared: Array) -> Array:
        bound = squared.max(axis=(-2, -1))[..., None]
        return np.asarray(_largest_root(quadratic[..., None], linear, constant - bound).min(axis=-1))


@dataclass(frozen=True)
class MinSum(_WithinDistance):
    """`mean + gamma * p`, gamma the largest with `sum_i |m - u_i|² <= max_i sum_j |u_i - u_j|²` (same paper).

    Example:
        >>> import numpy as np
        >>> MinSum(direction="sign")(np.array([[0.0], [2.0], [4.0]]), 1, rng=np.random.default_rng(0))
        array([[0.]])
    """

    def _largest(self, quadratic: Array, linear: Array, constant: Array, squared: Array) -> Array:
        count = linear.shape[-1]
        bound = squared.sum(axis=-1).max(axis=-1)
        return _largest_root(count * quadratic, linear.sum(axis=-1), constant.sum(axis=-1) - bound)


def _squared_distances(rows: Array) -> Array:
    """`[..., n, n]` squared distances, each by subtraction (a Gram matrix would lose close rows)."""
    wide = rows.astype(np.float64)
    squared = np.zeros((*rows.shape[:-1], rows.shape[-2]))
    for i in range(rows.shape[-2]):
        squared[..., i, :] = np.sum((wide[..., i : i + 1, :] - wide) ** 2, axis=-1)
    return squared


def _largest_root(a: Array, b: Array, c: Array) -> Array:
    """The larger root of `a g² + 2 b g + c` for c <= 0 <= a; 0 where a is 0."""
    root = np.sqrt(np.maximum(b**2 - a * c, 0.0))
    return np.asarray(np.maximum(np.divide(root - b, a, out=np.zeros(np.broadcast(a, b).shape), where=a > 0), 0.0))
