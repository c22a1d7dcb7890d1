"""Benchmarks that a reader can run: ``python -m benchmarks train``."""
