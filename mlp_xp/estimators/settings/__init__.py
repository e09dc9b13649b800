"""The estimators' parameters: constraints, descriptions, and the training that they define.

Values are resolved without data; anything that depends on targets is in `targets`.
"""
