"""Ensembles of federated models: who trains what (`Design`), what they answered (`Votes`), what could be certified."""

from holdfast.ensemble.design import DESIGNS, SELECTIONS, Design, commit, make_design
from holdfast.ensemble.planner import Plan, plan
from holdfast.ensemble.votes import UNKNOWN, VoteLog, Votes

__all__ = ["DESIGNS", "SELECTIONS", "UNKNOWN", "Design", "Plan", "VoteLog", "Votes", "commit", "make_design", "plan"]
