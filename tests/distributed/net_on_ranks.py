"""The trainings of the net, with ``distributed``; run on ranks by the tests.

``net_on_ranks.py ENGINE BACKEND`` prints a line of JSON on rank 0: for each case the largest
difference to the serial fit, and whether all ranks hold the same bits.
"""

from __future__ import annotations

import json
import sys
import warnings

import numpy as np
from net_cases import CASES, data

from mlp_xp.distributed import get_communicator


def chosen(backend):
    """Return the cases; on other backends than NumPy the core of them."""
    cases = {
        title: case
        for title, case in CASES.items()
        if case.precision == "float64" and case.recipe is None
    }
    return {title: case for title, case in cases.items() if case.is_core or backend == "numpy"}


def learned(model):
    arrays = [*model.coefs_, *model.intercepts_, getattr(model, "loss_curve_", model.loss_)]
    return np.concatenate([np.ravel(np.asarray(array, float)) for array in arrays])


def main(engine, backend):
    ranks, results = get_communicator(engine), {}
    warnings.simplefilter("ignore")
    for title, case in chosen(backend).items():
        X, y = data(case.kind)
        serial = learned(case.act(case.make(backend), X, y))
        model = case.make(backend).set_params(distributed=engine)
        shared = learned(case.act(model, X, y))
        copies = ranks.gather(shared.tobytes())
        difference = float(np.max(np.abs(shared - serial)))
        results[title] = difference, all(copy == copies[0] for copy in copies)
    if ranks.rank == 0:
        sys.stdout.write(json.dumps(results) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
