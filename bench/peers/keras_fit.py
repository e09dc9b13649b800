"""Keras: `compile` and `fit` on the backend that KERAS_BACKEND names; JAX uses jit."""

import keras
import numpy as np

from bench.suite.workloads import Contender, Task


def make(task: Task) -> Contender:
    if keras.backend.backend() == "torch":
        import torch

        torch.set_num_threads(task.threads)
    keras.utils.set_random_seed(0)
    activation = {"relu": "relu", "logistic": "sigmoid"}[task.net.activation]
    hidden = [keras.layers.Dense(width, activation) for width in task.net.widths[1:-1]]
    model = keras.Sequential(
        [keras.Input(task.net.widths[:1]), *hidden, keras.layers.Dense(task.net.widths[-1])]
    )
    rule = keras.optimizers.Adam if task.net.solver == "adam" else keras.optimizers.SGD
    model.compile(
        rule(task.net.learning_rate, **task.net.momentum),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        # On JAX, 8 steps per call halved the time of tiny compared with 1 step, and did not change
        # medium. With 32 steps, both were slower.
        steps_per_execution=1 if keras.backend.backend() == "torch" else 8,
    )

    def train(epochs: int) -> float:
        history = model.fit(task.x, task.y, task.net.batch_size, epochs, verbose=0)
        return history.history["loss"][-1]

    def predict(rows: np.ndarray) -> np.ndarray:
        # Keras recommends calling the model for a few rows, and `predict` for many rows.
        if len(rows) == 1:
            return keras.ops.convert_to_numpy(model(rows)).argmax(1)
        return model.predict(rows, batch_size=1024, verbose=0).argmax(1)

    return Contender(train, predict)
