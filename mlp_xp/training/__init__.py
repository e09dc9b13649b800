"""One fit: the step, the trainer that runs it, its data, its time and what ends it.

`inputs`, `step` and `inference` are the functions that a backend compiles; `epoch_plan`, `scalars`,
`step_table` and `batches` are the host's part of an epoch; `trainer` runs it, `divergence` undoes
what is not finite, and `diagnosis` finds the cause. The meaning of an estimator's parameters, and
what scikit-learn expects of one, is in `estimators`; where arrays live is in `backends`.
"""
