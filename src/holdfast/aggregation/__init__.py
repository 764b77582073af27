"""Robust aggregation: rules that turn one row per client into one update.

>>> import numpy as np
>>> updates = np.array([[1.0, 2.0], [1.2, 2.2], [0.8, 1.8], [1.0, 2.1], [1e9, np.nan]])
>>> make("trimmed-mean", f=1)(updates).round(2)
array([1.  , 2.05])
>>> make("trimmed-mean", f=1).aggregate(updates).replaced
array([False, False, False, False,  True])
"""

from holdfast.aggregation.averaging import Mean, MeanAroundMedian, Median, TrimmedMean
from holdfast.aggregation.calling import Rule
from holdfast.aggregation.distance import Bulyan, Krum, MultiKrum
from holdfast.aggregation.geometric import CenteredClipping, GeometricMedian
from holdfast.aggregation.mixing import Bucketing, NearestNeighborMixing, NormClipping
from holdfast.aggregation.registry import RULES, make
from holdfast.aggregation.regression import RepeatedMedian, ResidualReweighting, TheilSen
from holdfast.aggregation.similarity import FoolsGold

__all__ = [
    "RULES",
    "Bucketing",
    "Bulyan",
    "CenteredClipping",
    "FoolsGold",
    "GeometricMedian",
    "Krum",
    "Mean",
    "MeanAroundMedian",
    "Median",
    "MultiKrum",
    "NearestNeighborMixing",
    "NormClipping",
    "RepeatedMedian",
    "ResidualReweighting",
    "Rule",
    "TheilSen",
    "TrimmedMean",
    "make",
]
