"""The state of a fitted estimator, and its predictions, scores and summaries.

Training is in `fitting`.
"""
