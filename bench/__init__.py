"""Benchmarks of this library and its peers; `mlp-xp bench` runs them from a clone."""
