"""Training data: placement on the device, rows by position, and the plan of an epoch.

`step` turns a batch into the network's inputs.
"""
