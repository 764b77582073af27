"""Data sets and who holds which rows of them."""

from holdfast.data.dataset import Dataset
from holdfast.data.datasets import DATASETS, Source, fetch, load
from holdfast.data.partition import PARTITIONS, Partition, partition
from holdfast.data.sources import cache_dir
from holdfast.data.standard import Standard

__all__ = [
    "DATASETS",
    "PARTITIONS",
    "Dataset",
    "Partition",
    "Source",
    "Standard",
    "cache_dir",
    "fetch",
    "load",
    "partition",
]
