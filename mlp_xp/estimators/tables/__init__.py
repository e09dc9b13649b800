"""Tables as inputs of a network: numbers, categories, dates and missing values.

Imported only if a setting needs it.
"""
