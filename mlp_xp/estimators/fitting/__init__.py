"""The stages of a fit: preparing, requesting epochs, reporting to callbacks, and resuming.

The training loop is in `mlp_xp.training`.
"""
