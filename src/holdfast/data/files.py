"""A user's own data: .npz, Parquet and CSV files, or a folder in one of the known layouts.

The columns (or arrays) that count, whatever the format: features `x`; labels `y`, `label` or `labels`; optionally
`client`, `user` or `subject`, the natural client of each row.
"""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from holdfast.data.dataset import Dataset, assemble
from holdfast.types import DataError

LABEL_COLUMNS = ("y", "label", "labels")
CLIENT_COLUMNS = ("client", "user", "subject")
_NPZ_ERRORS = (
    OSError,
    ValueError,  # a header that does not parse, or a pickled array
    EOFError,
    KeyError,
    TypeError,  # a single .npy array, which is no archive
    MemoryError,  # a header that lies about its shape
    NotImplementedError,  # an unknown kind of compression
    zipfile.BadZipFile,
    zlib.error,
)
SUFFIXES = (".npz", ".parquet", ".csv", ".csv.gz")


def read_npz(path: Path, *, seed: int) -> Dataset:
    """A .npz with arrays `x` and `y`, optionally `client`, `x_test`, `y_test`, `client_test` and `label_names`.

    Pickled arrays are refused, never loaded. Without `x_test`, a quarter of each client's rows (of each label's,
    without clients) is held back.

    Raises:
        DataError: not an .npz, an array missing or pickled, or rows that `assemble` refuses.
    """
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
            arrays: dict[str, NDArray[Any]] = {name: archive[name] for name in archive.files}
    except _NPZ_ERRORS as error:
        hint = "arrays of Python objects are never loaded" if "pickle" in str(error) else "it is damaged or not an .npz"
        raise DataError(f"{path} cannot be read: {hint}") from error
    label = next((name for name in LABEL_COLUMNS if name in arrays), None)
    if "x" not in arrays or label is None:
        raise DataError(f"{path} holds {', '.join(arrays) or 'nothing'}; arrays x and y are needed")
    client = next((name for name in CLIENT_COLUMNS if name in arrays), None)
    names = arrays.get("label_names")
    return assemble(
        path.stem,
        arrays["x"],
        arrays[label],
        seed=seed,
        x_test=arrays.get("x_test"),
        y_test=arrays.get(f"{label}_test"),
        users=arrays.get(client) if client else None,
        users_test=arrays.get(f"{client}_test") if client else None,
        label_names=None if names is None else [str(name) for name in names],
    )


def read_table(
    path: Path,
    *,
    seed: int,
    test: Path | None = None,
    name: str | None = None,
    label_names: Sequence[str] | None = None,
) -> Dataset:
    """A Parquet or CSV table: a label column, optionally a client column, and features.

    Features are an `x` column of equally long lists, an `img` or `image` column of encoded images (bytes, or the
    struct of bytes and path that public Parquet copies have), or else every remaining column, all numeric.

    Args:
        path: .parquet, .csv or .csv.gz.
        seed: draws the test rows where `test` is not given.
        test: a second table of the same layout.
        name: what the data set is called; by default the file, or the folder of `path` and `test`.
        label_names: names of the labels, where the table has numbers.

    Raises:
        DataError: no label column, columns that are not numbers, damaged images, or rows that `assemble` refuses.
    """
    train = _columns(path)
    held = None if test is None else _columns(test)
    return assemble(
        name or (path.name.split(".")[0] if test is None else path.parent.name),
        train["x"],
        train["y"],
        seed=seed,
        x_test=None if held is None else held["x"],
        y_test=None if held is None else held["y"],
        users=train["client"],
        users_test=None if held is None else held["client"],
        label_names=label_names,
        feature_names=train["names"],
    )


def find_parquet(folder: Path) -> tuple[Path, Path] | None:
    """The only train*.parquet and the only test*.parquet of a folder, or None."""
    found = [sorted(folder.glob(f"{part}*.parquet")) for part in ("train", "test")]
    return (found[0][0], found[1][0]) if all(len(files) == 1 for files in found) else None


def _columns(path: Path) -> dict[str, Any]:
    """x, y, client (or None) and feature names of one table."""
    table = read_frame(path)
    label = next((name for name in LABEL_COLUMNS if name in table), None)
    if label is None:
        raise DataError(f"{path} has no column named {' or '.join(LABEL_COLUMNS)}; rename the one with the labels")
    if table.empty:
        raise DataError(f"{path} has no rows")
    if table[label].isna().any():
        raise DataError(f"{path}: column {label!r} is empty in {int(table[label].isna().sum())} rows; drop those rows")
    client = next((name for name in CLIENT_COLUMNS if name in table), None)
    if client is not None and table[client].isna().any():
        raise DataError(f"{path}: column {client!r} is empty in {int(table[client].isna().sum())} rows; fill them in")
    features = table.drop(columns=[label, *([client] if client else [])])
    x, names = _features(path, features)
    return {
        "x": x,
        "y": table[label].to_numpy(),
        "client": None if client is None else table[client].to_numpy(),
        "names": names,
    }


def read_frame(path: Path, columns: list[str] | None = None) -> pd.DataFrame:
    """A Parquet or CSV file as a data frame, or a `DataError` that says why not."""
    try:
        if path.suffix == ".parquet":
            return pd.read_parquet(path, columns=columns)
        return pd.read_csv(path, usecols=columns, low_memory=False)
    except (OSError, ValueError, EOFError, KeyError, zlib.error) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(f"{path} cannot be read: {reason}") from error


def _features(path: Path, table: pd.DataFrame) -> tuple[NDArray[Any], tuple[str, ...]]:
    image = next((name for name in ("img", "image") if name in table), None)
    if image is not None:
        return decode_images(path, table[image].tolist()), ()
    if "x" in table and table["x"].dtype == object:
        try:
            return np.stack([np.asarray(row) for row in table["x"]]), ()
        except ValueError as error:
            raise DataError(f"{path}: lists in column x differ in length; make them equally long") from error
    if table.shape[1] == 0:
        raise DataError(f"{path} has labels but no feature columns")
    for name in table:
        if not pd.api.types.is_numeric_dtype(table[name]):
            raise DataError(
                f"{path}: column {name!r} is not numeric (for example {str(table[name].iloc[0])!r}); "
                "encode it as numbers or drop it"
            )
    return table.to_numpy(dtype=np.float64, na_value=np.nan), tuple(str(name) for name in table.columns)


def decode_images(path: Path, cells: list[Any]) -> NDArray[np.uint8]:
    """PNG or JPEG images, all of one size, as `[M, channels, height, width]` bytes."""
    from PIL import Image, UnidentifiedImageError

    images: list[NDArray[np.uint8]] = []
    for row, cell in enumerate(cells):
        content = cell["bytes"] if isinstance(cell, dict) else cell
        try:
            with Image.open(io.BytesIO(content)) as image:
                grey = image.mode in ("1", "L")
                pixels = np.asarray(image.convert("L" if grey else "RGB"))
        except (OSError, TypeError, ValueError, UnidentifiedImageError, Image.DecompressionBombError) as error:
            raise DataError(f"{path}: the image in row {row} cannot be decoded ({error}); drop that row") from error
        images.append(pixels[None] if grey else np.moveaxis(pixels, 2, 0))
        if images[-1].shape != images[0].shape:
            raise DataError(f"{path}: image {row} is {images[-1].shape}, the first {images[0].shape}; resize them")
    return np.stack(images)
