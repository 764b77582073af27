"""Federated learning that survives malicious clients.

Robust aggregation with measured strength (`holdfast.aggregation`) and certificates with proofs
(`holdfast.certification`). Nothing heavy is imported here: `import holdfast` costs milliseconds.
"""

__version__ = "0.1.0"
