"""Tables as inputs of a network: numbers, categories, dates and holes, learned in the first fit.

Nothing of it is imported until a setting asks for it.
"""
