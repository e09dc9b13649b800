"""Training a network: steps, the trainer that runs them, data, time limits and early stopping.

`step` contains the functions that a backend compiles and the table of their numbers; `data` plans
an epoch, `trainer` runs it, and `loop` asks for it. `stack` trains many models at once, and
`divergence` restores finite weights and finds the cause of infinity or NaN. `estimators` defines
what the parameters mean and follows scikit-learn's conventions; `backends` decides where arrays
live.
"""
