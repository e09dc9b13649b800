"""One fit: the step, the trainer that runs it, its data, its time and what ends it.

Data come as batches or as rows, scaled on the device. What a parameter of an estimator means, and
what scikit-learn expects of one, is in `estimators`; where arrays live is in `backends`.
"""
