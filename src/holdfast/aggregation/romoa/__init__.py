"""Romoa: lookahead similarity and sanitizing factors."""

from holdfast.aggregation.romoa.factors import majority_window
from holdfast.aggregation.romoa.rule import PRESETS, Romoa
from holdfast.aggregation.romoa.schedule import Syncing
from holdfast.aggregation.romoa.state import FactorState, Verdict

__all__ = ["PRESETS", "FactorState", "Romoa", "Syncing", "Verdict", "majority_window"]
