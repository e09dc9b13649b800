"""The stages of a fit: preparation, requests for epochs, reports to callbacks, resuming.

The training loop is in `mlp_xp.training`.
"""
