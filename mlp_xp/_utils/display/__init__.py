"""Progress displays for terminals and notebooks.

The reports of a fit are in `estimators.fitting` and `cli`.
"""
