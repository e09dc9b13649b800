"""Helpers for all folders: array types, trees of arrays, random numbers, files, signals, imports.

Each module does one small thing. Nothing here is public, and nothing here knows what a layer, a
backend or an estimator is.
"""
