"""The summary of a network, layer by layer: parameters, memory and operations."""

from __future__ import annotations

import html
from collections.abc import Iterator
from typing import Any

import numpy as np

from mlp_xp._utils.dataclass import dataclass
from mlp_xp.estimators.fitted.state import fitted_state
from mlp_xp.estimators.settings.config import resolve_batch_size, resolve_optimizer
from mlp_xp.nn.blocks import Row, rows


@dataclass(frozen=True)
class Summary:
    """A summary of a network, which prints as text and displays as HTML in a notebook.

    ``state_bytes`` is the size of parameters, optimizer state and moving average; ``batch_bytes``
    is the size of the activations that a step stores for the backward pass. ``training_work`` is
    the number of multiplications and additions in one sample's matrix products, forward and
    backward.
    """

    rows: tuple[Row, ...]
    state_bytes: int
    batch_bytes: int
    training_work: int

    @property
    def parameters(self) -> int:
        """The number of learned parameters."""
        return sum(row.parameters for row in self.rows)

    @property
    def work(self) -> int:
        """The number of operations in one sample's matrix products in the forward pass."""
        return sum(row.work for row in self.rows)

    def _cells(self) -> Iterator[tuple[str, str, str, str]]:
        yield "layer", "output", "parameters", "FLOPs per sample"
        for row in self.rows:
            work = f"{row.work:,}" if row.work else ""
            yield row.name, str(row.output), f"{row.parameters:,}" if row.parameters else "", work
        yield "total", "", f"{self.parameters:,}", f"{self.work:,}"

    @property
    def _note(self) -> str:
        return (
            f"training: {self.training_work:,} FLOPs per sample, {_size(self.state_bytes)} of "
            f"parameters and optimizer state, {_size(self.batch_bytes)} per batch"
        )

    def __str__(self) -> str:
        cells = list(self._cells())
        first, *others = (max(map(len, column)) for column in zip(*cells, strict=True))
        lines = [
            "  ".join([name.ljust(first), *map(str.rjust, row, others)]) for name, *row in cells
        ]
        rule = "-" * len(lines[0])
        lines = [lines[0], rule, *lines[1:-1], rule, lines[-1], self._note]
        return "\n".join(line.rstrip() for line in lines)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        head, *body = self._cells()
        rows = [
            "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells) + "</tr>"
            for tag, cells in [("th", head), *(("td", row) for row in body)]
        ]
        note = f"<p>{html.escape(self._note)}</p>"
        return f'<table class="mlp-xp-summary">{"".join(rows)}</table>{note}'


def _size(n_bytes: int) -> str:
    size, unit = float(n_bytes), "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if size < 1000:
            break
        size, unit = size / 1000, larger
    return f"{size:.3g} {unit}"


def summary_of(model: Any) -> Summary:
    """Return the summary of a fitted estimator's network."""
    state, params = fitted_state(model), model._params()
    network, itemsize = state.network, np.dtype(state.dtype).itemsize
    found: list[Row] = []
    for number, blocks in enumerate(network.blocks):
        is_output = number == len(network.blocks) - 1
        first, *others = rows(blocks, network.sizes[number])
        name = "output" if is_output else f"hidden {number}"
        found.append(first._replace(name=f"{name}: {first.name}"))
        found += [row._replace(name=f"  {row.name}") for row in others]
    state_type = resolve_optimizer(params).state_type
    n_copies = 1 + len(state_type._fields) + (params["ema_decay"] is not None)
    last = model.history_[-1].n_samples if model.history_ else 1
    batch_size = min(resolve_batch_size(params["batch_size"]), last)
    # The backward pass does not need the last layer's outputs.
    kept = network.sizes[0] + sum(row.output for row in found[:-1])
    return Summary(
        tuple(found),
        sum(row.parameters for row in found) * itemsize * n_copies,
        kept * itemsize * batch_size,
        # In the backward pass, each layer has two matrix products, except the first, which has one.
        3 * sum(row.work for row in found) - next(row.work for row in found if row.work),
    )
