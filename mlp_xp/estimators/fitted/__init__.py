"""The state of a fitted estimator, and what is computed from it: predictions, scores, summaries.

Nothing here trains.
"""
