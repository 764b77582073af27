"""A Flower app for benchmarks/flower_round.py."""
