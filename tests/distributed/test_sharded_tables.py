"""Tables of a distributed fit: all ranks learn the columns from the rows of all."""

import numpy as np
import pandas

from mlp_xp import MLPRegressor
from mlp_xp.distributed import Distributed, get_communicator

N = 60
Y = np.arange(N) / N
X = pandas.DataFrame(
    {
        "age": np.where(np.arange(N) == 50, np.nan, np.sqrt(np.arange(N))),
        "city": ["Bern", "Oslo"] * 20 + ["Rome"] * 20,
        "street": [f"{i % 15}. street" for i in range(N)],
        "day": pandas.Timestamp("2020-01-01") + pandas.to_timedelta(np.arange(N), "D"),
    }
)


def fit_parts() -> None:
    """Check that a fit of the parts is the fit of all; rank 1 has no rows."""
    rank = get_communicator("mpi").rank
    rows = {0: slice(0, 30), 1: slice(0, 0), 2: slice(30, N)}[rank]
    model = MLPRegressor(
        hidden_layer_sizes=(4,), max_iter=3, learning_rate="cosine", random_state=0
    ).set_params(categorical_features="from_dtype", missing_values="impute", input_scaling="robust")
    whole = model.fit(X, Y).predict(X)
    for data, part in (("sharded", rows), ("replicated", slice(None))):
        model.set_params(distributed=Distributed(data=data))
        found = model.fit(X[part], Y[part]).predict(X)
        assert "city=Rome" in model.columns_.input_names
        np.testing.assert_allclose(found, whole, atol=1e-12)


def test_ranks_learn_the_columns_of_all_rows(on_threads):
    on_threads(3, fit_parts)
