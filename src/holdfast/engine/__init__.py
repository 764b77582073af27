"""Where work runs: in this process, in processes of this machine, or on a Dask cluster; with the same results."""

from holdfast.engine.choice import choose
from holdfast.engine.cluster import Dask
from holdfast.engine.processes import Processes

__all__ = ["Dask", "Processes", "choose"]
