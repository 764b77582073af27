"""Attacks by somebody who knows the rule: search for the upload that moves its output farthest.

The attackers run the server's rule on everything they see and keep the upload that displaces the result most along
the direction they want. A rule that rejects an upload is not moved by it, so the search finds by itself the largest
strength the rule still accepts. Everything is deterministic: a grid, then a golden-section search around the best.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from holdfast.attacks.statistical import Direction, perturbation, unit
from holdfast.attacks.view import Array, Knowledge, ModelAttack, Rule, View, check_knowledge, make_view
from holdfast.types import ConfigError

_GOLDEN = (np.sqrt(5.0) - 1.0) / 2.0
Shape = Callable[[Array], Array]


@dataclass(frozen=True)
class Search:
    """What the search found; leading axes are independent federations.

    Attributes:
        upload: `[..., d]`, the vector every attacker uploads.
        displacement: `[...]`, how far the rule's output moves along the direction, from the honest mean.
        strength: `[...]`, in units of the shape: honest spreads or honest lengths.
        shape: `[...]`, which family the upload is from (an index into `names`).
        names: the families tried.
    """

    upload: Array
    displacement: Array
    strength: Array
    shape: Array
    names: tuple[str, ...]


@dataclass(frozen=True)
class Adaptive(ModelAttack):
    """The most harmful upload for a given rule, among families that aim at its weak spots.

    Maximizes `<rule(honest + f uploads) - mean(honest), p>` over uploads of the families of `aim`:

    - "any": `mean + g * spread * p`;
    - "residual-reweighting": also shifts by g standard deviations in a fraction q of the coordinates, so that a rule
      which adds up confidence over coordinates keeps trusting the model (the attack of Fu et al. 2019, A.7);
    - "romoa": also uploads at cosine c with the honest mean and g times the median honest length, layer by layer, so
      that a rule which measures angles keeps trusting the model.

    Args:
        aim: the families searched.
        direction: p: "mean" (against the honest mean), "sign", "std", or "own": towards the attackers' own poisoned
            update.
        low: smallest strength tried.
        high: largest strength tried.
        grid: strengths tried per family, spaced geometrically.
        refine: golden-section steps around the best.
        fractions: q tried, for "residual-reweighting".
        cosines: c tried, for "romoa".
        knowledge: fixed to "rule".

    Raises:
        ConfigError: called without a rule.

    Costs about `families * grid + refine` calls of the rule a round.

    Example:
        >>> import numpy as np
        >>> honest = np.random.default_rng(0).normal(1.0, 0.5, (7, 5))
        >>> median = lambda rows: np.median(rows, axis=-2)
        >>> found = Adaptive().search(honest, 3, rule=median)
        >>> bool(found.displacement > 0.2)
        True
    """

    aim: Literal["any", "residual-reweighting", "romoa"] = "any"
    direction: Direction | Literal["own"] = "mean"
    low: float = 1e-2
    high: float = 1e3
    grid: int = 26
    refine: int = 12
    fractions: tuple[float, ...] = (1.0, 0.3, 0.1, 0.03, 0.01)
    cosines: tuple[float, ...] = (-1.0, 0.0, 0.3, 0.6, 0.8, 0.9, 0.95, 1.0)
    knowledge: Knowledge = "rule"

    def __post_init__(self) -> None:
        if self.aim not in ("any", "residual-reweighting", "romoa"):
            raise ConfigError(f'aim={self.aim!r} is unknown; choose "any", "residual-reweighting" or "romoa"')
        if self.direction not in ("mean", "std", "sign", "own"):
            raise ConfigError(f'direction={self.direction!r} is unknown; choose "mean", "std", "sign" or "own"')
        if not 0 < self.low < self.high:
            raise ConfigError(f"low={self.low} and high={self.high} span no range; 0 < low < high is needed")
        if self.grid < 2 or self.refine < 0:
            raise ConfigError(f"grid={self.grid} and refine={self.refine} do not search; grid >= 2, refine >= 0")
        if not all(0 < q <= 1 for q in self.fractions) or not all(-1 <= c <= 1 for c in self.cosines):
            raise ConfigError("fractions must lie in (0, 1] and cosines in [-1, 1]")
        check_knowledge("adaptive", self.knowledge, ("rule",))

    def craft(self, view: View, rng: np.random.Generator) -> Array:
        """The best upload found, the same for every attacker."""
        return view.repeat(self._search(view).upload)

    def search(self, honest: Any, f: int, *, rule: Rule, **round_of: Any) -> Search:
        """The search with its findings; arguments as for the call."""
        return self._search(make_view(honest, f, rule=rule, **round_of))

    def _search(self, view: View) -> Search:
        if view.rule is None:
            raise ConfigError("the adaptive attack needs the rule it is aimed at; pass rule=...")
        mean = view.peers.mean(axis=-2)
        goal = self._goal(view, mean)
        shapes = dict(self._shapes(view, mean, goal))

        def damage(upload: Array) -> Array:
            rows = np.concatenate([view.peers, view.repeat(upload)], axis=-2)
            with np.errstate(all="ignore"):
                value = np.asarray(view.rule(rows))  # type: ignore[misc]
                moved = np.sum((value - mean) * goal, axis=-1)
            return np.where(np.isfinite(moved), moved, -np.inf)

        lead = mean.shape[:-1]
        best = Search(mean, damage(mean), np.zeros(lead), np.zeros(lead, int), tuple(shapes))
        strengths = np.geomspace(self.low, self.high, self.grid)
        for index, shape in enumerate(shapes.values()):
            for strength in strengths:
                best = _better(best, damage, shape, np.full(lead, strength), index)
        return self._refined(best, damage, list(shapes.values()), strengths[1] / strengths[0])

    def _refined(self, best: Search, damage: Callable[[Array], Array], shapes: list[Shape], ratio: float) -> Search:
        """Golden-section search in log strength, one grid cell to either side of each federation's best."""
        start = np.log(np.maximum(best.strength, self.low))
        lower, upper = start - np.log(ratio), start + np.log(ratio)
        home = best.shape

        def at(logs: Array) -> Array:
            upload = np.zeros_like(best.upload)
            for index in np.unique(home):
                upload = np.where((home == index)[..., None], shapes[index](np.exp(logs)), upload)
            return upload

        found = best
        for _ in range(self.refine):
            inner, outer = upper - _GOLDEN * (upper - lower), lower + _GOLDEN * (upper - lower)
            left, right = at(inner), at(outer)
            down, up = damage(left), damage(right)
            found = _keep(found, left, down, np.exp(inner), home)
            found = _keep(found, right, up, np.exp(outer), home)
            lower, upper = np.where(down >= up, lower, inner), np.where(down >= up, outer, upper)
        return found

    def _goal(self, view: View, mean: Array) -> Array:
        """The unit vector `[..., d]` along which damage is measured."""
        if self.direction == "own":
            return unit(view.mine.mean(axis=-2) - mean)
        return unit(perturbation(view.peers, self.direction))

    def _shapes(self, view: View, mean: Array, goal: Array) -> Iterator[tuple[str, Shape]]:
        """The families: each maps strengths `[...]` to uploads `[..., d]`."""
        rows = view.peers
        spread = np.median(np.linalg.norm(rows - mean[..., None, :], axis=-1), axis=-1)
        step = np.where(spread > 0, spread, np.linalg.norm(mean, axis=-1))[..., None] * goal
        yield "shift", lambda g: mean + g[..., None] * step
        if self.aim == "residual-reweighting":
            push = np.sign(goal) * rows.std(axis=-2)
            order = np.argsort(np.argsort(-np.abs(push * goal), axis=-1, kind="stable"), axis=-1, kind="stable")
            for q in self.fractions:
                part = np.where(order < max(1, round(q * mean.shape[-1])), push, 0.0)
                yield f"fraction {q:g}", lambda g, part=part: mean + g[..., None] * part  # type: ignore[misc]
        if self.aim == "romoa":
            for c in self.cosines:
                turned = _cone(rows, goal, c, view.layout or (slice(None),))
                yield f"cosine {c:g}", lambda g, turned=turned: g[..., None] * turned  # type: ignore[misc]


def _better(best: Search, damage: Callable[[Array], Array], shape: Shape, strength: Array, index: int) -> Search:
    upload = shape(strength).astype(best.upload.dtype)
    return _keep(best, upload, damage(upload), strength, np.full(strength.shape, index))


def _keep(best: Search, upload: Array, displacement: Array, strength: Array, shape: Array) -> Search:
    """The better of two findings, federation by federation; the earlier one stays in a tie."""
    wins = displacement > best.displacement
    return Search(
        np.where(wins[..., None], upload, best.upload).astype(best.upload.dtype),
        np.where(wins, displacement, best.displacement),
        np.where(wins, strength, best.strength),
        np.where(wins, shape, best.shape),
        best.names,
    )


def _cone(rows: Array, goal: Array, cosine: float, layout: Any) -> Array:
    """Layer by layer, the median honest length at the given cosine with the honest mean, leaning towards the goal."""
    turned = np.empty_like(goal)
    for layer in layout:
        heading = unit(rows[..., layer].mean(axis=-2))
        aside = goal[..., layer] - np.sum(goal[..., layer] * heading, axis=-1, keepdims=True) * heading
        length = np.median(np.linalg.norm(rows[..., layer], axis=-1), axis=-1)[..., None]
        turned[..., layer] = length * (cosine * heading + np.sqrt(1.0 - cosine**2) * unit(aside))
    return turned
