"""The products of a step, library beside library."""

from __future__ import annotations

import pytest


@pytest.mark.matrix
def test_the_table_has_every_product_of_a_step(module, capsys):
    pytest.importorskip("numba")
    pytest.importorskip("torch")
    products = module("products")
    products.main(["lab", "--rounds=1", "--threads=1"])
    _, _, *rows = capsys.readouterr().out.splitlines()
    titles, *rates = zip(*(row.strip("| ").split(" | ") for row in rows), strict=True)
    assert titles == (
        "x1 W1: 128 x 3072 x 64",
        "x1^T dy1: 3072 x 128 x 64",
        "large: 2048 x 2048 x 2048",
    )
    assert all(int(rate) > 0 for column in rates for rate in column)


def test_a_step_has_three_products_a_layer_but_the_first(module):
    products, workloads = module("products"), module("workloads")
    medium = next(w for w in workloads.WORKLOADS if w.name == "medium")
    *found, _ = products.shapes(medium)
    assert [shape.name for shape in found] == ["x1 W1", "x1^T dy1", "x2 W2", "dy2 W2^T", "x2^T dy2"]
    small = 2 * 128 * 512 * 10
    work = module("roofline").operations(medium.widths, 128, train=True)
    assert sum(shape.operations for shape in found) == work - 3 * small
