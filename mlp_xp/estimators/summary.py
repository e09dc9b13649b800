"""What a network is made of, layer by layer, and what it costs."""

from __future__ import annotations

import html
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from mlp_xp.nn.blocks import (
    Activate,
    BatchNorm,
    Block,
    BlockLinear,
    Dropout,
    LayerNorm,
    Linear,
    Residual,
)
from mlp_xp.nn.network import Network

__all__ = ["Row", "Summary", "summarize"]


class Row(NamedTuple):
    """A part of the network: its name, what it gives, what it has to learn, what it costs.

    ``output`` is the width; ``parameters`` a count; ``work`` the multiplications and additions of
    the products of one sample on the way forward.
    """

    name: str
    output: int
    parameters: int
    work: int


@dataclass(frozen=True)
class Summary:
    """A table of a network; prints as text, and shows as HTML in a notebook.

    Parameters
    ----------
    rows : tuple of Row
    state_bytes : int
        Of parameters, optimizer state and moving average.
    batch_bytes : int
        Of what a training step keeps of a batch for the way back.
    training_work : int
        Multiplications and additions of the products for one sample, forward and back.
    """

    rows: tuple[Row, ...]
    state_bytes: int
    batch_bytes: int
    training_work: int

    @property
    def parameters(self) -> int:
        """How many numbers are learned."""
        return sum(row.parameters for row in self.rows)

    @property
    def work(self) -> int:
        """Multiplications and additions of the products for one sample, forward."""
        return sum(row.work for row in self.rows)

    def _cells(self) -> Iterator[tuple[str, str, str, str]]:
        yield "layer", "output", "parameters", "flops a sample"
        for row in self.rows:
            work = f"{row.work:,}" if row.work else ""
            yield row.name, str(row.output), f"{row.parameters:,}" if row.parameters else "", work
        yield "in all", "", f"{self.parameters:,}", f"{self.work:,}"

    def _notes(self) -> tuple[str, ...]:
        return (
            f"training: {self.training_work:,} flops a sample, "
            f"{_size(self.state_bytes)} of parameters and optimizer state, "
            f"{_size(self.batch_bytes)} kept of a batch",
        )

    def __str__(self) -> str:
        cells = list(self._cells())
        widths = [max(len(row[i]) for row in cells) for i in range(4)]
        lines = [
            f"{row[0]:{widths[0]}}  "
            + "  ".join(f"{cell:>{width}}" for cell, width in zip(row[1:], widths[1:], strict=True))
            for row in cells
        ]
        rule = "-" * len(lines[0])
        lines = [lines[0], rule, *lines[1:-1], rule, lines[-1], *self._notes()]
        return "\n".join(line.rstrip() for line in lines)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        head, *body = self._cells()
        rows = [
            "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells) + "</tr>"
            for tag, cells in [("th", head), *(("td", row) for row in body)]
        ]
        notes = "".join(f"<p>{html.escape(note)}</p>" for note in self._notes())
        return f'<table class="mlp-xp-summary">{"".join(rows)}</table>{notes}'


def _size(n_bytes: int) -> str:
    size, unit = float(n_bytes), "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if size < 1000:
            break
        size, unit = size / 1000, larger
    return f"{size:.3g} {unit}"


def summarize(network: Network, *, itemsize: int, batch_size: int, n_copies: int) -> Summary:
    """Describe a network.

    Parameters
    ----------
    network : Network
    itemsize : int
        Bytes of a number.
    batch_size : int
        Samples of a training step.
    n_copies : int
        Arrays of the parameters' shape that training keeps, themselves among them.

    Examples
    --------
    >>> from mlp_xp.nn.network import Network
    >>> from mlp_xp.estimators.summary import summarize
    >>> network = Network((4, 3, 2), dropout=0.5)
    >>> summarize(network, itemsize=4, batch_size=10, n_copies=3)
    layer            output  parameters  flops a sample
    ---------------------------------------------------
    hidden 0: dense       3          15              24
      relu                3
      dropout 0.5         3
    output: dense         2           8              12
    ---------------------------------------------------
    in all                           23              36
    training: 84 flops a sample, 276 B of parameters and optimizer state, 520 B kept of a batch
    """
    rows: list[Row] = []
    kept = width = network.widths[0]
    for number, layer in enumerate(network.blocks):
        is_output = number == len(network.blocks) - 1
        name = "output: " if is_output else f"hidden {number}: "
        for block in layer:
            for part, prefix in _parts(block):
                if isinstance(part, Linear | BlockLinear):
                    width = part.fan_out
                rows.append(_row(part, width, name + prefix))
                name = "  "
                kept += 0 if is_output and isinstance(part, Linear) else width
    first = next(row.work for row in rows if row.work)
    n_parameters = sum(row.parameters for row in rows)
    return Summary(
        tuple(rows),
        n_parameters * itemsize * n_copies,
        kept * itemsize * batch_size,
        # Back, a product for the weights and one for the input, which the first layer is spared.
        3 * sum(row.work for row in rows) - first,
    )


def _parts(block: Block) -> Iterator[tuple[Block, str]]:
    if isinstance(block, Residual):
        for number, part in enumerate(block.blocks):
            yield part, "" if number else "residual, "
    else:
        yield block, ""


def _row(block: Block, width: int, name: str) -> Row:
    if isinstance(block, Linear):
        size = block.fan_in * block.fan_out
        return Row(f"{name}dense", width, size + block.fan_out, 2 * size)
    if isinstance(block, BlockLinear):
        how = block.arrangement
        size = how.blocks * how.fan_in * how.fan_out
        return Row(f"{name}{how.blocks} dense blocks", width, size + width, 2 * size)
    if isinstance(block, LayerNorm | BatchNorm):
        kind = "layer" if isinstance(block, LayerNorm) else "batch"
        return Row(f"{name}{kind} normalization", width, 2 * width, 0)
    if isinstance(block, Dropout):
        return Row(f"{name}dropout {block.rate:g}", width, 0, 0)
    assert isinstance(block, Activate)
    function = block.function
    label = function if isinstance(function, str) else getattr(function, "__name__", str(function))
    return Row(f"{name}{label}", width, 0, 0)
