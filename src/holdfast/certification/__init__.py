"""Certificates: how many malicious clients (or examples) a prediction survives, with proof. NumPy and SciPy only."""

from holdfast.certification.bounds import (
    clopper_pearson_lower,
    clopper_pearson_upper,
    hypergeometric_lower,
    winner_pvalue,
)
from holdfast.certification.certificate import ABSTAIN, KINDS, Certificate
from holdfast.certification.collective import CollectiveBound, certify_collective
from holdfast.certification.deployed import certify_deployed
from holdfast.certification.ideal import METHODS, certify_ideal
from holdfast.certification.secret import certify_secret, hit_quantile
from holdfast.certification.selection import certified_level, delta, radius

__all__ = [
    "ABSTAIN",
    "KINDS",
    "METHODS",
    "Certificate",
    "CollectiveBound",
    "certified_level",
    "certify_collective",
    "certify_deployed",
    "certify_ideal",
    "certify_secret",
    "clopper_pearson_lower",
    "clopper_pearson_upper",
    "delta",
    "hit_quantile",
    "hypergeometric_lower",
    "radius",
    "winner_pvalue",
]
