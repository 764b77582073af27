"""Certificates: how many malicious clients (or examples) a prediction survives, with proof. NumPy and SciPy only."""

from holdfast.certification.certificate import ABSTAIN, KINDS, Certificate

__all__ = ["ABSTAIN", "KINDS", "Certificate"]
