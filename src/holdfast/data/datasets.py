"""The data sets by name, and `load`, which finds, fetches, checks and reads them, or a user's own file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from holdfast.data import cifar, har, loan, reviews
from holdfast.data.dataset import Dataset, assemble
from holdfast.data.files import SUFFIXES, find_parquet, read_npz, read_table
from holdfast.data.idx import MNIST_MD5, find_idx, read_idx
from holdfast.data.sources import Progress, RemoteFile, cache_dir, download
from holdfast.types import ConfigError, DataError


@dataclass(frozen=True)
class Source:
    """A data set the library knows: what it is, where it comes from, and how its files are found and read.

    Attributes:
        description: one line.
        license: under which its publisher gives it.
        homepage: the publisher's page.
        read: reads a folder, `read(folder, seed)`.
        find: whether a folder holds the files, `find(folder)`.
        files: what `fetch` downloads; empty where nothing need (digits) or may (a login is asked) be downloaded.
        wanted: what to put into the folder by hand; empty where there is nothing to get.
    """

    description: str
    license: str
    homepage: str
    read: Callable[[Path, int], Dataset]
    find: Callable[[Path], bool]
    files: tuple[RemoteFile, ...] = ()
    wanted: str = ""


def load(
    name_or_path: str | Path, *, data_dir: str | Path | None = None, seed: int = 0, fetch_missing: bool = True
) -> Dataset:
    """A data set by name, or from a path to a user's own file or folder.

    Names are the keys of `DATASETS`. A path is an .npz, Parquet or CSV file (see `holdfast.data.files`), or a folder
    with MNIST-style IDX files, the UCI HAR layout, or train.parquet and test.parquet.

    Args:
        name_or_path: "digits", "mnist", ... or a path.
        data_dir: where a named data set's files are (the folder itself, or the folder above it); by default the
            user's cache, into which missing files are downloaded.
        seed: draws the test rows of data without a test set of its own; nothing else.
        fetch_missing: download what is not in the cache; never into `data_dir`.

    Raises:
        ConfigError: an unknown name.
        DataError: files missing (says which folder to put them in), damaged or unusable.

    Example:
        >>> load("digits").label_names[:3]
        ('0', '1', '2')
    """
    name = str(name_or_path)
    if name not in DATASETS:
        return _load_path(Path(name_or_path), seed=seed)
    source = DATASETS[name]
    folder = locate(name, data_dir=data_dir, fetch_missing=fetch_missing) if source.wanted else Path()
    return source.read(folder, seed)


def locate(name: str, *, data_dir: str | Path | None = None, fetch_missing: bool = False) -> Path:
    """The folder that holds a named data set's files.

    Raises:
        DataError: not there; says what to put where.
    """
    source = DATASETS[name]
    if data_dir is not None:
        root = Path(data_dir).expanduser()
        for folder in (root, root / name):
            if source.find(folder):
                return folder
        raise DataError(f"{name} is not in {root} (nor in {root / name}); put {source.wanted} there")
    folder = cache_dir() / name
    if not source.find(folder):
        if not fetch_missing:
            raise DataError(f"{name} is not in {folder}; run `holdfast data fetch {name}` or put {source.wanted} there")
        fetch(name)
    return folder


def fetch(name: str, *, progress: Progress | None = None) -> Path:
    """Download a data set's official files into the cache, each checked before it counts; gives their folder.

    Files that are there already are kept. A download that fails leaves nothing behind.

    Args:
        name: a key of `DATASETS`.
        progress: called as `progress(file, bytes_so_far, bytes_in_all)` while files arrive.

    Raises:
        ConfigError: an unknown name.
        DataError: no mirror could be reached, or the publisher offers no direct download.
    """
    if name not in DATASETS:
        raise ConfigError(f"unknown data set {name!r}; it must be one of {', '.join(DATASETS)}")
    source = DATASETS[name]
    folder = cache_dir() / name
    if not source.wanted or source.find(folder):
        return folder
    if not source.files:
        raise DataError(
            f"{name} cannot be downloaded without a login; get it from {source.homepage} and put {source.wanted} "
            f"into {folder}"
        )
    for file in source.files:
        if not (folder / file.name).exists():
            download(file, folder, wanted=source.wanted, progress=progress)
    return folder


def _load_path(path: Path, *, seed: int) -> Dataset:
    """A user's own file or folder."""
    path = path.expanduser()
    if path.is_dir():
        if find_idx(path):
            return read_idx(path, name=path.name, official=False)
        tables = find_parquet(path)
        if tables:
            return read_table(tables[0], test=tables[1], seed=seed)
        for source in DATASETS.values():
            if source.wanted and source.find(path):
                return source.read(path, seed)
        raise DataError(
            f"{path} is a folder in no known layout; it needs MNIST-style IDX files, train.parquet and test.parquet, "
            "or the files of one of the named data sets"
        )
    if not path.is_file():
        raise ConfigError(
            f"{str(path)!r} is neither a data set ({', '.join(DATASETS)}) nor a file or folder that exists"
        )
    if path.suffix == ".npz":
        return read_npz(path, seed=seed)
    if path.name.endswith((".json", ".json.gz")):
        return reviews.read_reviews(path, seed=seed)
    if path.name in loan.NAMES:
        return loan.read_loan(path, seed=seed)
    if path.name.endswith(SUFFIXES):
        return read_table(path, seed=seed)
    raise DataError(f"{path} is of no known kind; it must end in {', '.join(SUFFIXES)}, .json or .json.gz")


def _read_digits(folder: Path, seed: int) -> Dataset:
    from sklearn.datasets import load_digits

    bunch = load_digits()
    return assemble("digits", bunch.images[:, None].astype(np.float32) / 16, bunch.target, seed=seed)


MNIST_MIRRORS = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
)

DATASETS: dict[str, Source] = {
    "digits": Source(
        description="1,797 handwritten digits of 8x8 pixels, part of scikit-learn: no download",
        license="CC BY 4.0",
        homepage="https://archive.ics.uci.edu/dataset/80",
        read=_read_digits,
        find=lambda folder: True,
    ),
    "mnist": Source(
        description="70,000 handwritten digits of 28x28 pixels",
        license="CC BY-SA 3.0",
        homepage="https://yann.lecun.org/exdb/mnist/",
        read=lambda folder, seed: read_idx(folder, name="mnist", official=True),
        find=lambda folder: find_idx(folder) is not None,
        files=tuple(
            RemoteFile(f"{name}.gz", tuple(f"{mirror}{name}.gz" for mirror in MNIST_MIRRORS), md5, of_content=True)
            for name, md5 in MNIST_MD5.items()
        ),
        wanted="train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-images-idx3-ubyte and t10k-labels-idx1-ubyte "
        "(with or without .gz)",
    ),
    "har": Source(
        description="10,299 windows of phone sensors, 561 features, 6 activities of 30 people (each a client)",
        license="free with citation, no commercial use",
        homepage="https://archive.ics.uci.edu/dataset/240",
        read=lambda folder, seed: har.read_har(folder, seed=seed),
        find=har.find_har,
        files=(
            RemoteFile(
                har.ARCHIVE,
                (
                    f"https://archive.ics.uci.edu/static/public/240/{har.OUTER_ARCHIVE}",
                    "https://archive.ics.uci.edu/ml/machine-learning-databases/00240/UCI%20HAR%20Dataset.zip",
                ),
            ),
        ),
        wanted=f"{har.ARCHIVE!r} (or the folder it unpacks to)",
    ),
    "cifar10": Source(
        description="60,000 colour pictures of 32x32 pixels in ten classes",
        license="free with citation",
        homepage="https://www.cs.toronto.edu/~kriz/cifar.html",
        read=lambda folder, seed: cifar.read_cifar(folder, seed=seed),
        find=cifar.find_cifar,
        files=(RemoteFile(cifar.ARCHIVE, (f"https://www.cs.toronto.edu/~kriz/{cifar.ARCHIVE}",), cifar.ARCHIVE_MD5),),
        wanted=f"{cifar.ARCHIVE} (or {cifar.FOLDER}, or train and test Parquet files)",
    ),
    "reviews": Source(
        description="Amazon's Kindle reviews, positive or negative, as token ids",
        license="by permission of the publisher, for research",
        homepage="https://cseweb.ucsd.edu/~jmcauley/datasets/amazon/links.html",
        read=lambda folder, seed: reviews.read_reviews(folder, seed=seed),
        find=reviews.find_reviews,
        files=(
            RemoteFile(
                reviews.OFFICIAL,
                (f"https://snap.stanford.edu/data/amazon/productGraph/categoryFiles/{reviews.OFFICIAL}",),
            ),
        ),
        wanted=f"{reviews.OFFICIAL} (or one other .json or .json.gz with reviewText and overall)",
    ),
    "loan": Source(
        description="Lending Club loans, nine statuses, by US state (each a client)",
        license="Kaggle: public domain; OpenIntro's sample: CC BY-SA 3.0",
        homepage="https://www.kaggle.com/datasets/wendykan/lending-club-loan-data",
        read=lambda folder, seed: loan.read_loan(folder, seed=seed),
        find=loan.find_loan,
        wanted="loan.csv (Kaggle) or loans_full_schema.csv (openintro.org), plain or .gz",
    ),
}
