"""The state of a fitted estimator, and its predictions, scores and summaries.

Nothing here trains.
"""
