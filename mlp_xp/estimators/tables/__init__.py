"""The encoding of tables as network inputs: numbers, categories, dates and missing values.

This package is imported only if a parameter requires it.
"""
