"""Progress on a terminal and on the page of a notebook.

What a training reports is in `estimators.reporting` and `cli`.
"""
