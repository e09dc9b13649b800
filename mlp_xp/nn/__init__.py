"""The maths of a network: layers, losses, blocks, hidden layers, and the network they make.

Everything is a pure function of arrays in the Python Array API standard, its gradient beside it.
Update rules are in `optimizers`, the training step in `training`, faster versions in `backends`.
"""
