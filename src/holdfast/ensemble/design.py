"""Who trains what: the assignment of clients to models, drawn from a secret seed and open to audit.

A design is a `[N, n]` membership matrix with the story of how it was drawn. The random bits are SHAKE-256 of the
seed, a label and an index, so they are the same on every machine, no model's bits depend on another's, and whoever
lacks the seed cannot tell them from noise. The SHA-256 of the seed is the public commitment: publish it before
training, reveal the seed afterwards, and anyone can redraw the design with `Design.verify`.
"""

from __future__ import annotations

import hashlib
import math
import secrets
from dataclasses import dataclass, field, replace
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from holdfast.ensemble import draws
from holdfast.types import ConfigError

Seed = bytes | str | int

DESIGNS = {
    "partitions": "r independent secret partitions of the clients into groups of k: N = r * (n // k) models",
    "disjoint": "one secret partition of the clients into groups of k: N = n // k models",
    "random": "N independent uniformly random k-subsets of the clients",
    "exhaustive": "all C(n, k) subsets of k clients",
    "spread": "n clients in N cells, every cell in the same number of models: every client in exactly d = N * k / n",
}
SELECTIONS = {
    "replacement": "N independent draws of k training examples with repetition (bagging)",
    "binomial": "N selections that take every training example with probability p, independently; some may be empty",
}
"""Designs for training examples only: a client cannot join a group twice, nor a group be empty."""
CERTIFICATES = {
    "partitions": ("deployed", "secret"),
    "disjoint": ("deployed", "secret"),
    "random": ("deployed", "secret", "ideal"),
    "exhaustive": ("deployed", "ideal"),
    "spread": ("deployed",),
    "replacement": ("deployed", "ideal"),
    "binomial": ("deployed", "ideal"),
}
_DRAW = {
    "partitions": draws.partitions,
    "disjoint": draws.partitions,
    "random": draws.subsets,
    "exhaustive": draws.all_subsets,
    "spread": draws.spread,
    "replacement": draws.repeated,
}
MAX_EXHAUSTIVE = 200_000
SECRET_BYTES = 16


@dataclass(frozen=True, eq=False)
class Design:
    """Which clients train which model.

    Attributes:
        kind: a key of `DESIGNS` or `SELECTIONS`.
        membership: `[N, n]` bool; row j holds the clients of model j. Read-only.
        k: clients per model as asked for; groups are as equal as possible when k does not divide n. For `binomial`
            the expected number, rounded.
        group_sizes: clients per group of ONE draw: of one partition (partitions, disjoint), or `(k,)`.
        repeats: number of independent draws: partitions (partitions, disjoint) or models (random), else 1.
        commitment: SHA-256 of the seed, as hex. Public.
        secret: whether the seed is long enough (16 bytes) that the commitment does not give it away.
        seed: the seed itself while this process knows it; never printed and never saved with the votes.
        p: the probability of a `binomial` selection, exactly; None for other kinds.

    Example:
        >>> design = make_design("partitions", n=10, k=3, n_models=6, seed=b"drawn by the operator, secret")
        >>> design.group_sizes, design.repeats, design.n_models
        ((3, 3, 4), 2, 6)
        >>> design.models_per_client.tolist()
        [2, 2, 2, 2, 2, 2, 2, 2, 2, 2]
        >>> design.verify(b"drawn by the operator, secret"), design.verify(b"another")
        (True, False)
    """

    kind: str
    membership: NDArray[np.bool_]
    k: int
    group_sizes: tuple[int, ...]
    repeats: int
    commitment: str
    secret: bool
    seed: bytes | None = field(default=None, repr=False)
    p: Fraction | None = None

    def __post_init__(self) -> None:
        self.membership.setflags(write=False)

    @property
    def n(self) -> int:
        """The number of clients."""
        return int(self.membership.shape[1])

    @property
    def n_models(self) -> int:
        """N, the number of models."""
        return int(self.membership.shape[0])

    @property
    def models_per_client(self) -> NDArray[np.int64]:
        """`[n]` int64: how many models each client takes part in."""
        degrees: NDArray[np.int64] = self.membership.sum(axis=0, dtype=np.int64)
        return degrees

    @property
    def fingerprint(self) -> str:
        """SHA-256 over kind, sizes and membership: names this design in votes and logs without telling the seed."""
        head = f"{self.kind} {self.n} {self.k} {self.n_models} {self.repeats} {self.group_sizes} {self.commitment}"
        head += "" if self.p is None else f" {self.p}"
        return hashlib.sha256(head.encode() + b"\0" + np.packbits(self.membership).tobytes()).hexdigest()

    @property
    def certificates(self) -> tuple[str, ...]:
        """The kinds of certificate whose proof covers this design."""
        return CERTIFICATES[self.kind]

    @property
    def expected_size(self) -> int | Fraction:
        """Items per selection as the certificates count them: k, or p n for `binomial`."""
        return self.k if self.p is None else self.p * self.n

    def members(self, model: int) -> NDArray[np.int64]:
        """The clients of one model, ascending."""
        return np.flatnonzero(self.membership[model])

    def draws(self, model: int) -> NDArray[np.int64]:
        """The items of one model, ascending, each as often as it was drawn: `members`, but for `replacement`.

        Raises:
            ConfigError: if the design is `replacement` and its seed, which alone tells how often, is not at hand.
        """
        if self.kind != "replacement":
            return self.members(model)
        if self.seed is None:
            raise ConfigError("how often each example was drawn follows from the seed, which this design has not")
        return draws.with_repetition(self.seed, self.n, self.k, model)

    def prefix(self, repeats: int) -> Design:
        """The design made of the first `repeats` draws; one partition of several is a disjoint design.

        Raises:
            ConfigError: if the design has fewer draws, or was not drawn in independent parts.
        """
        if self.kind not in ("partitions", "disjoint", "random", *SELECTIONS):
            raise ConfigError(f"a {self.kind} design has no independent draws to take a prefix of")
        if not 1 <= repeats <= self.repeats:
            raise ConfigError(f"repeats={repeats} must lie between 1 and the {self.repeats} draws of this design")
        models = repeats * len(self.group_sizes)
        kind = "disjoint" if self.kind == "partitions" and repeats == 1 else self.kind
        return replace(self, kind=kind, membership=self.membership[:models].copy(), repeats=repeats)

    def verify(self, seed: Seed) -> bool:
        """Whether this design is the one the revealed seed gives: commitment and every member match."""
        if commit(seed) != self.commitment:
            return False
        again = make_design(self.kind, n=self.n, k=self.k, n_models=self.n_models, seed=seed, p=self.p)
        return again.fingerprint == self.fingerprint

    def without_seed(self) -> Design:
        """The same design as everyone else may see it."""
        return replace(self, seed=None)


def make_design(
    kind: str,
    *,
    n: int,
    k: int | None = None,
    n_models: int | None = None,
    seed: Seed | None = None,
    p: Fraction | None = None,
) -> Design:
    """Draw a design.

    | kind | models | each client takes part in |
    |---|---|---|
    | `partitions` | r * (n // k), r independent partitions | r models |
    | `disjoint` | n // k | 1 model |
    | `random` | any N | N * k / n models on average |
    | `exhaustive` | C(n, k) | C(n - 1, k - 1) models |
    | `spread` | N <= n with N * k a multiple of n | N * k / n models |
    | `replacement` | any N | N * k / n places on average |
    | `binomial` | any N | N * p models on average |

    Args:
        kind: a key of `DESIGNS` or `SELECTIONS`.
        n: number of clients (or examples).
        k: clients per model; follows from p for `binomial`. If k does not divide n, a partition has n // k groups of
            k or more clients, as equal as possible.
        n_models: N. Needed for `random` and `spread`; a multiple of n // k for `partitions` (default: one
            partition); for the other kinds it follows from n and k and is only checked.
        seed: secret bytes; drawn with `secrets` when None. Text is taken as UTF-8, an integer as its decimal
            digits: handy for experiments, but short seeds can be guessed from the commitment (`Design.secret`).
        p: the probability of `binomial`, strictly between 0 and 1, fixed before the data were seen.

    Raises:
        ConfigError: for an unknown kind, k outside 1..n, or a number of models the kind cannot have.

    Example:
        >>> make_design("disjoint", n=7, k=2, seed=1).membership.sum(axis=1).tolist()
        [2, 2, 3]
        >>> make_design("exhaustive", n=4, k=2, seed=1).n_models
        6
    """
    if kind not in DESIGNS and kind not in SELECTIONS:
        raise ConfigError(f"kind={kind!r} is not a design; choose one of {', '.join(DESIGNS)}")
    if (p is not None) != (kind == "binomial"):
        raise ConfigError("a binomial design needs p, and no other design has one")
    if p is not None:
        if not 0 < p < 1:
            raise ConfigError(f"p={p} must lie strictly between 0 and 1")
        k = max(1, round(p * n))
    for name, value in (("n", n), ("k", k)) + ((("n_models", n_models),) if n_models is not None else ()):
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
            raise ConfigError(f"{name}={value!r} must be an integer of at least 1")
    assert k is not None  # checked above
    if k > n:
        raise ConfigError(f"k={k} clients per model are more than the n={n} clients there are")
    n, k = int(n), int(k)
    key = secrets.token_bytes(32) if seed is None else _seed_bytes(seed)
    models = model_count(kind, n, k, n_models)
    membership = draws.binomial(key, n, p, models) if p is not None else _DRAW[kind](key, n, k, models)
    sizes = draws.group_sizes(n, n // k) if kind in ("partitions", "disjoint") else (k,)
    independent = kind == "random" or kind in SELECTIONS
    repeats = models // len(sizes) if kind == "partitions" else models if independent else 1
    secret = not isinstance(seed, int | np.integer) and len(key) >= SECRET_BYTES
    return Design(kind, membership, k, sizes, repeats, commit(key), secret, key, p)


def commit(seed: Seed) -> str:
    """SHA-256 of the seed as hex; the same as `sha256sum` of a file with the seed's bytes."""
    return hashlib.sha256(_seed_bytes(seed)).hexdigest()


def model_count(kind: str, n: int, k: int, n_models: int | None) -> int:
    """N for a design, checked against what the kind can have; `ConfigError` says which N would be right."""
    groups = n // k
    if kind == "exhaustive":
        needed = math.comb(n, k)
        if needed > MAX_EXHAUSTIVE:
            raise ConfigError(f"an exhaustive design of n={n}, k={k} has {needed} models; at most {MAX_EXHAUSTIVE}")
    elif kind == "disjoint" or (kind == "partitions" and n_models is None):
        needed = groups
    elif n_models is None:
        raise ConfigError(f"n_models is needed for a {kind} design")
    else:
        needed = n_models
    if kind == "partitions" and needed % groups:
        raise ConfigError(
            f"n_models={needed} must be a multiple of the {groups} groups that n={n} clients in groups of k={k} make"
        )
    if kind == "spread" and (needed > n or needed * k % n):
        raise ConfigError(
            f"n_models={needed} does not suit a spread design of n={n}, k={k}: it must be at most n, "
            f"with n_models * k a multiple of n; choose a multiple of {n // math.gcd(n, k)}"
        )
    if n_models not in (None, needed):
        raise ConfigError(f"n_models={n_models}, but the {kind} design of n={n}, k={k} has {needed} models")
    return needed


def _seed_bytes(seed: Seed) -> bytes:
    if isinstance(seed, bool) or not isinstance(seed, bytes | str | int | np.integer):
        raise ConfigError(f"seed has type {type(seed).__name__}; it must be bytes, text or an integer")
    return seed if isinstance(seed, bytes) else str(seed).encode()
