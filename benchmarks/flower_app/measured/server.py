"""The ServerApp: three rounds of RobustStrategy on a million parameters, timed."""

import json
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, Context, Message
from flwr.serverapp import Grid, ServerApp

from holdfast.flower import RobustStrategy

app = ServerApp()
SHAPES = {"hidden": (999, 1000), "bias": (1000,)}


class Timed(RobustStrategy):
    """The strategy with a clock."""

    clock: list[dict[str, float]]

    def configure_train(self, *args: Any) -> Iterable[Message]:
        """A round begins."""
        self.clock.append({"began": time.monotonic()})
        return super().configure_train(*args)

    def aggregate_train(self, server_round: int, replies: Iterable[Message]) -> Any:
        """A round ends."""
        wall, processor = time.monotonic(), time.process_time()
        result = super().aggregate_train(server_round, replies)
        row = self.clock[-1]
        row |= {"strategy": time.monotonic() - wall, "processor": time.process_time() - processor}
        row["round"] = time.monotonic() - row.pop("began")
        row["used"] = float(len(self.history[-1].of("used")))
        return result


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run, and write down how long everything took."""
    strategy = Timed("median", fraction_evaluate=0.0)
    strategy.clock = []
    start = ArrayRecord({name: Array(np.zeros(shape, np.float32)) for name, shape in SHAPES.items()})
    result = strategy.start(grid, start, num_rounds=int(context.run_config["num-rounds"]), timeout=300)
    mean = float(result.arrays["hidden"].numpy().mean())
    Path(str(context.run_config["out"])).write_text(json.dumps({"rounds": strategy.clock, "mean": mean}))
