"""Helpers for all folders: array types, trees of arrays, random numbers, files, signals, imports.

Each module does one small thing. Nothing here is public or depends on layers, backends or
estimators.
"""
