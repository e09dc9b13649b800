"""Training of a network: data, steps, time limits, early stopping, and many models at once.

`step` contains the functions that a backend compiles. `loop` requests epochs, `data` plans each
epoch, and `trainer` runs it. `stack` trains many models at once. `divergence` finds the cause of
infinity or NaN and restores finite weights.
"""
