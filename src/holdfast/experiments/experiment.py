"""What a sweep runs: a grid of rules, attacks, numbers of attackers and seeds over one federation, from a TOML file."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from holdfast.experiments.attacked import Description, SimulateConfig, label_of, make_rule, parse_config
from holdfast.experiments.naming import check_keys
from holdfast.experiments.threat import check_attack
from holdfast.types import ConfigError

GRID = ("rules", "attacks", "attackers", "seeds")
OWN = ("rule", "attack", "attackers", "seed")


@dataclass(frozen=True)
class Cell:
    """One place of the grid with one seed.

    Attributes:
        rule: the rule's label.
        attack: the attack's label; "none" where there are no attackers.
        attackers: m.
        config: what to simulate.
    """

    rule: str
    attack: str
    attackers: int
    config: SimulateConfig

    @property
    def row(self) -> tuple[str, int]:
        """The row of the result table."""
        return self.attack, self.attackers


@dataclass(frozen=True)
class Experiment:
    """A grid over one federation.

    Without attackers every attack is the same, so those cells run once, with the attack "none".

    Attributes:
        title: what it is about.
        federation: everything that all cells share.
        rules: how the server aggregates; names, or mappings with `name`, parameters and perhaps a `label`.
        attacks: likewise.
        attackers: numbers of malicious clients.
        seeds: one repetition each.
    """

    title: str
    federation: SimulateConfig
    rules: tuple[Description, ...] = ("mean",)
    attacks: tuple[Description, ...] = ("none",)
    attackers: tuple[int, ...] = (0,)
    seeds: tuple[int, ...] = (0,)

    def __post_init__(self) -> None:
        for name in GRID:
            if not getattr(self, name):
                raise ConfigError(f"grid: {name} is empty; there is nothing to run")
        for name, labels in (("rules", self.rule_labels), ("attacks", [label_of(attack) for attack in self.attacks])):
            twice = [label for label in labels if list(labels).count(label) > 1]
            if twice:
                raise ConfigError(f"grid: {name} has {twice[0]!r} twice; give one of them another label")
        for name in ("attackers", "seeds"):
            values = getattr(self, name)
            if len(set(values)) < len(values):
                raise ConfigError(f"grid: {name} = {list(values)} names a value twice")
        for rule in self.rules:
            make_rule(rule, f=0)
        for attack in self.attacks:
            check_attack(attack)

    @property
    def rule_labels(self) -> tuple[str, ...]:
        """The columns of the result table."""
        return tuple(label_of(rule) for rule in self.rules)

    def cells(self) -> tuple[Cell, ...]:
        """Every cell once, rows first."""
        return tuple(self._cells())

    def rows(self) -> tuple[tuple[str, int], ...]:
        """(attack, attackers) of every row of the result table, in order."""
        return tuple(dict.fromkeys(cell.row for cell in self._cells()))

    def _cells(self) -> Iterator[Cell]:
        for attackers in self.attackers:
            for attack in self.attacks if attackers else ("none",):
                for rule in self.rules:
                    for seed in self.seeds:
                        what: dict[str, Any] = {
                            "rule": _plain(rule),
                            "attack": _plain(attack),
                            "attackers": attackers,
                            "seed": seed,
                        }
                        yield Cell(label_of(rule), label_of(attack), attackers, replace(self.federation, **what))


def read_experiment(path: Path) -> Experiment:
    """An experiment from its TOML file.

    Raises:
        ConfigError: the file is missing or no TOML, a key is unknown (with the nearest known one), or a value is off.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as problem:
        raise ConfigError(f"{path} cannot be read ({problem.strerror}); name the file of an experiment") from problem
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as problem:
        raise ConfigError(f"{path} is no TOML: {problem}") from problem
    return parse_experiment(content, where=str(path), title=path.stem)


def parse_experiment(content: Mapping[str, Any], *, where: str, title: str) -> Experiment:
    """An experiment from the entries of a file.

    Example:
        >>> grid = {"rules": ["mean", "median"], "attacks": ["sign-flip"], "attackers": [0, 4], "seeds": 2}
        >>> len(parse_experiment({"grid": grid}, where="file", title="flips").cells())
        8
    """
    check_keys(content, ("title", "federation", "grid"), where)
    grid, federation = content.get("grid", {}), content.get("federation", {})
    for name, part in (("grid", grid), ("federation", federation)):
        if not isinstance(part, Mapping):
            raise ConfigError(f"{where}: {name} must be a table, [{name}], but is {part!r}")
    check_keys(grid, GRID, f"{where}: [grid]")
    known = [name for name in SimulateConfig.__dataclass_fields__ if name not in OWN]
    check_keys(federation, known, f"{where}: [federation]")
    config = parse_config(federation, where=f"{where}: [federation]")
    seeds = grid.get("seeds", 3)
    if isinstance(seeds, int) and not isinstance(seeds, bool):
        seeds = list(range(seeds))
    return Experiment(
        str(content.get("title", title)),
        config,
        tuple(_list(grid, "rules", ["mean"], where)),
        tuple(_list(grid, "attacks", ["none"], where)),
        tuple(_whole(_list(grid, "attackers", [0], where), "attackers", where)),
        tuple(_whole(_list({"seeds": seeds}, "seeds", [], where), "seeds", where)),
    )


def _list(grid: Mapping[str, Any], name: str, default: list[Any], where: str) -> list[Any]:
    value = grid.get(name, default)
    if not isinstance(value, list):
        raise ConfigError(f"{where}: [grid] {name} must be a list, but is {value!r}")
    return value


def _whole(values: list[Any], name: str, where: str) -> list[int]:
    for value in values:
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise ConfigError(f"{where}: [grid] {name} must be whole numbers of at least 0, but has {value!r}")
    return values


def _plain(description: Description) -> Description:
    """A description without its label, so that a cell does not depend on what it is called."""
    if isinstance(description, str):
        return description
    rest = {key: value for key, value in description.items() if key != "label"}
    return rest["name"] if set(rest) == {"name"} else rest
