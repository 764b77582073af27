"""Robust aggregation: rules that turn one row per client into one update."""
