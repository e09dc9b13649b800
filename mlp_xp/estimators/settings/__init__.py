"""The estimators' parameters: constraints, descriptions, and the resulting training settings.

The package `targets` contains everything that depends on the targets.
"""
