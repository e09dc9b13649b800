"""Training a network: data, steps, time limits, early stopping, and stacks of models.

`step` contains the functions that a backend compiles. `loop` requests epochs, `data` plans each
epoch, and `trainer` runs it. `stack` trains several models together. `divergence` finds the cause
of infinity or NaN and restores finite weights.
"""
