"""Which nodes are asked: as Flower samples them, except that a node that leaves cannot keep the others waiting."""

from __future__ import annotations

import math
import random
import time
from dataclasses import dataclass, field

from flwr.serverapp import Grid

from holdfast.flower.grid import LOG
from holdfast.types import ThreatModelError


@dataclass
class Roster:
    """The nodes seen so far in this run.

    Flower waits without end until enough nodes are connected. Here a node that was connected once counts as there: it
    may be asked in vain, but it cannot stop the round by leaving.

    Args:
        random: draws the sample.
        wait: seconds to wait for nodes nobody has seen yet.
        look: seconds between two looks.
    """

    random: random.Random
    wait: float = 600.0
    look: float = 1.0
    known: dict[int, None] = field(default_factory=dict)

    def choose(
        self, grid: Grid, fraction: float, least: int, available: int, quorum: float
    ) -> tuple[list[int], list[int]]:
        """The nodes to ask and, if there are fewer than `least`, known ones that are away in place of the rest.

        Raises:
            ThreatModelError: too few nodes have ever come within `wait` seconds.
        """
        end = time.monotonic() + self.wait
        while True:
            online = list(dict.fromkeys(grid.get_node_ids()))
            self.known |= dict.fromkeys(online)
            size = max(int(len(online) * fraction), least)
            away = [node for node in self.known if node not in set(online)]
            needed = max(size, available)
            if len(online) >= needed or (
                len(online) + len(away) >= needed and len(online) >= max(1, math.ceil(quorum * needed))
            ):
                break
            if time.monotonic() >= end:
                if len(self.known) >= needed:
                    break  # they were here: let the round fail, and the run go on
                raise ThreatModelError(f"{needed} nodes are needed, {len(online)} connected within {self.wait:g} s")
            LOG.info("%d of at least %d nodes are connected, waiting", len(online), needed)
            time.sleep(self.look)
        chosen = self.random.sample(online, min(size, len(online)))
        return chosen, away[-(least - len(chosen)) :] if len(chosen) < least else []
