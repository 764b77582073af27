"""A curve drawn with characters, for a terminal."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

_EIGHTHS = " ▁▂▃▄▅▆▇█"


def curve_text(name: str, values: Sequence[float], *, width: int = 60, height: int = 6) -> str:
    """Shares in [0, 1] over the rounds, as columns of eighths; long runs are averaged into `width` columns.

    Example:
        >>> print(curve_text("accuracy", [0.0, 0.25, 0.5, 1.0], height=2))
        accuracy
        100% ┤   █
             │ ▄██
    """
    shares = np.nan_to_num(np.clip(np.asarray(values, dtype=np.float64), 0.0, 1.0))
    columns = np.array([part.mean() for part in np.array_split(shares, min(width, len(shares)))])
    lines = [name]
    for row in reversed(range(height)):
        fill = np.clip(np.floor(columns * height * 8 + 1e-9) - 8 * row, 0, 8).astype(int)
        label = {height - 1: "100% ┤", (height - 1) // 2: " 50% ┤" if height >= 4 and height % 2 == 0 else "     │"}
        lines.append(label.get(row, "     │") + "".join(_EIGHTHS[k] for k in fill).rstrip())
    return "\n".join(lines)
