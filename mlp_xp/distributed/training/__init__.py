"""Training on many ranks: parts of a plan, sums of gradients, and decisions.

How a step is computed, and a fit run, is in `mlp_xp.training`, which knows nothing of this.
"""
