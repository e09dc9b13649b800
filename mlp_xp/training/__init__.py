"""Training a network: steps, the trainer that runs them, data, time limits and early stopping.

`step` has the functions that a backend compiles and the table of their numbers, `data` the plan of
an epoch; `trainer` runs it, `loop` asks for it, `stack` runs many models, and `divergence` undoes
what is not finite, and `diagnosis` finds the cause. The meaning of an estimator's parameters, and
what scikit-learn expects of one, is in `estimators`; where arrays live is in `backends`.
"""
