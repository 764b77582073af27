"""What is asked of a run's votes: the numbers that decide certificates, but not the votes themselves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from holdfast.experiments.certificates import PERSPECTIVES
from holdfast.experiments.run import Run
from holdfast.types import ConfigError


@dataclass(frozen=True)
class Question:
    """A run remembers the question it was started with, because alpha must not be chosen by looking at its answer.

    Attributes:
        alpha: failure probability of `secret`, `ideal` and `data` certificates.
        poisoning: what the malicious may do, "P1" to "P6"; see `certify_votes`.
        perspective: "clean" or "observed"; see `certify_votes`.

    Raises:
        ConfigError: alpha or perspective out of range; poisoning is checked where the kinds are known.

    Example:
        >>> Question().but(alpha=0.01, poisoning=None)
        Question(alpha=0.01, poisoning='P3', perspective='clean')
    """

    alpha: float = 0.001
    poisoning: str = "P3"
    perspective: str = "clean"

    def __post_init__(self) -> None:
        if not 0 < self.alpha < 1:
            raise ConfigError(f"alpha = {self.alpha} must be inside (0, 1), for example 0.001")
        if self.perspective not in PERSPECTIVES:
            raise ConfigError(f"perspective = {self.perspective!r} must be one of {', '.join(PERSPECTIVES)}")

    @classmethod
    def of(cls, run: Run) -> Question:
        """The question that a run was started with."""
        return cls(**run.manifest().get("question", {}))

    def but(self, **given: Any) -> Question:
        """The same question with what is given; None leaves a part as it is."""
        return replace(self, **{name: value for name, value in given.items() if value is not None})

    def entry(self) -> Mapping[str, Any]:
        """What the manifest holds."""
        return asdict(self)


def resumed(run: Run, given: Mapping[str, Any]) -> Question:
    """The question of a run that goes on; another one is put to the finished run.

    Raises:
        ConfigError: what is given now differs from what the run was started with.
    """
    if "question" not in run.manifest():  # of a version that did not write it down
        return Question().but(**given)
    own = Question.of(run)
    for name, value in own.entry().items():
        if given.get(name) not in (None, value):
            raise ConfigError(
                f"--resume: --{name} is {given[name]!r} now but {value!r} in {run.path}; leave it out, and ask the "
                f"finished run with: holdfast recertify {run.path} --{name} {given[name]}"
            )
    return own
