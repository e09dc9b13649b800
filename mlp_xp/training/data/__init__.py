"""Training data: placement on the device, selection of rows, and epoch plans.

The package `step` turns a batch into the network's inputs.
"""
