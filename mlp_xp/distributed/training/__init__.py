"""Training on many ranks: parts of a plan, sums of gradients, and decisions.

Steps and fits are in `mlp_xp.training`, which does not depend on this package.
"""
