"""The parameters of the estimators: their constraints and texts, and the training they ask for.

Values are resolved without data; what depends on targets is in `targets`.
"""
