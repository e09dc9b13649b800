"""Sparse matrices, of which mlp_xp uses one format."""
