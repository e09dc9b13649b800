"""Internal helpers: array types, trees of arrays, random numbers, files, signals, imports.

Each module does one small thing. Nothing here is public, and nothing depends on layers, backends or
estimators.
"""
