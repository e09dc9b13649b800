"""Training data: placement on the device, selection of rows, and the plan of an epoch."""
