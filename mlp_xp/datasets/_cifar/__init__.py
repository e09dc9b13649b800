"""The forms in which CIFAR is distributed: batches, pickles, and the packages of a registry.

Which is looked for first is decided in `mlp_xp.datasets.cifar`.
"""
