"""Training data: placement on the device, selection of rows, and the plan of an epoch.

The package `step` turns a batch into the network's inputs.
"""
