"""The parameters of the estimators: constraints, descriptions, and the training they define.

Values are resolved without data; what depends on targets is in `targets`.
"""
