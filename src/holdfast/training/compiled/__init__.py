"""The compiled CPU engine: federated rounds as vector code, several times faster than a loop over torch modules.

`spec` reads a Sequential, `plan` turns it into tables of offsets, `microkernels` and `vectors` are the LLVM code
everything is made of, `layers`, `dual` and `engine` are the numba programs on top, `trainer` is the interface.
"""

from holdfast.training.compiled.trainer import CompiledTrainer

__all__ = ["CompiledTrainer"]
