"""The mathematics of a network: layers, losses, blocks, hidden layers, and the network itself.

Everything is a pure function of arrays in the Python Array API standard, defined together with its
gradient. Update rules are in `optimizers`, the training step is in `training`, and faster versions
are in `backends`.
"""
