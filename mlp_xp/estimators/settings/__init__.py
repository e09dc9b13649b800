"""The estimators' parameters: constraints, descriptions, and the resulting training settings.

Values are resolved without data; anything that depends on targets is in `targets`.
"""
