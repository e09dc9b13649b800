"""The mathematics of a network: layers, losses, blocks, hidden layers, and the network itself.

All functions are pure, use only the Python Array API standard, and are defined together with their
gradients. Update rules are in `optimizers`, the training step is in `training`, and faster kernels
are in `backends`.
"""
