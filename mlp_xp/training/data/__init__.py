"""Training data: their place on the device, rows by position, and the plan of an epoch.

What a batch becomes before the network is in `step`.
"""
