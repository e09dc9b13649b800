"""Training a network: steps, the trainer that runs them, data, time limits and early stopping.

`step` contains the functions that a backend compiles and computes the scalars of each step; `data`
plans an epoch, `trainer` runs it, and `loop` requests it. `stack` trains many models at once, and
`divergence` finds the cause of infinity or NaN and restores finite weights. `estimators` defines
what the parameters mean and follows scikit-learn's conventions; `backends` stores the arrays.
"""
