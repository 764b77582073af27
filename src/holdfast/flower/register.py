"""Register public keys with a SuperLink: `python -m holdfast.flower.register CONNECTION KEY.pub ...`.

Runs Flower's own `flwr supernode register` once per key, in one process, since starting one costs seconds. Prints
one JSON object per key with its node id.
"""

from __future__ import annotations

import sys
from importlib.metadata import entry_points


def main(connection: str, *keys: str) -> None:
    """Register the keys in order."""
    (flwr,) = entry_points(group="console_scripts", name="flwr")
    command = flwr.load()
    for key in keys:
        command(["supernode", "register", key, connection, "--format", "json"], standalone_mode=False)


if __name__ == "__main__":
    main(*sys.argv[1:])
