"""The calls that a fit makes to its callbacks, and records for them."""

from types import SimpleNamespace

import numpy as np

from mlp_xp.training.loop.records import Record

X = np.random.default_rng(0).normal(size=(60, 5))
Y = np.arange(60) % 3


def record(epoch: int = 1, **fields) -> Record:
    facts = {"loss": 1.0 / epoch, "accuracy": None, "learning_rate": 0.001, "n_samples": 60}
    facts |= {"seconds": 0.5, "validation_loss": None, "validation_score": None}
    return Record(epoch=epoch, **(facts | fields))


SCORED = [record(epoch, validation_score=0.5) for epoch in (1, 2, 3)]


def fit(callback, records=SCORED, *, n_steps=4, model=None, fail=False) -> list[int]:
    """Call what a fit calls, and give the steps that were done in each epoch."""
    model = model or SimpleNamespace(max_iter=len(records))
    done_in = []
    callback.on_fit_begin(model)
    try:
        for row in records:
            for done in range(1, n_steps + 1):
                callback.on_progress(model, done, n_steps, None)
                stopped = callback.on_step_end(model, done, n_steps)
                if stopped:
                    break
            done_in.append(done)
            if callback.on_epoch_end(model, row) or stopped:
                break
        if fail:
            raise KeyboardInterrupt
    finally:
        callback.on_fit_end(model)
    return done_in
