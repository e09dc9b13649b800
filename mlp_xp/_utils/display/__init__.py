"""Progress displays for terminals and notebooks.

Reports of a training are in `estimators.fitting` and `cli`.
"""
