"""Training on many ranks: parts of a plan, and sums of gradients.

Steps and fits are in `mlp_xp.training`, which does not depend on this package.
"""
