"""Data of many fits are on a device once, with the targets of all of them."""

from __future__ import annotations

import numpy as np

from mlp_xp.training.shared import Column, SharedData


def test_fits_have_the_very_same_array(backend):
    shared = SharedData(np.ones((4, 2)))
    one, two = (
        shared.place(backend, np.asarray([1, 2]), "float64", np.asarray(rows, dtype=np.int32))
        for rows in ([0, 1], [2, 3])
    )
    assert one.x is two.x
    assert one.column is two.column
    np.testing.assert_array_equal(backend.get(two.column.on_device), [1, 2, 1, 2])


class SlowBackend:
    """Puts what it was given after another fit has brought its targets."""

    column: Column | None = None

    def put(self, values):
        column, self.column = self.column, None
        if column is not None:
            assert column.add(np.asarray([1]), np.asarray([6]))
        return values.copy()


def test_targets_that_arrive_while_others_travel_are_not_lost():
    backend = SlowBackend()
    column = Column(backend, np.asarray([5]), 2)
    assert column.add(np.asarray([0]), np.asarray([5]))
    backend.column = column
    np.testing.assert_array_equal(column.on_device, [5, 0])
    np.testing.assert_array_equal(column.on_device, [5, 6])
