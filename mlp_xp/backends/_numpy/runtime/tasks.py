"""The format of kernel calls in machine code, such as a matrix product or a loop.

A kernel call (a `Task`) is a record of 64-bit integers with named fields: a header, then the
arguments of its kind of kernel. NumPy kernels write the fields, and machine code reads them by the
same names. An array's field contains its address, or 0 if there is no array.
"""

from __future__ import annotations

import functools
import math
from collections import namedtuple
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from mlp_xp.backends._numpy.runtime.loops import position_of
from mlp_xp.compiler.kernel import LANES, VIEWS, Kernel

WORDS = 26  # The number of 64-bit integers in a record.
# How a matrix product is computed: in tiles, in tiles with sums split among threads, or untiled.
TILES, MAY_SPLIT_STEPS, FEW_ROWS = range(3)
# How operands are packed: as single elements, or as bfloat16 pairs for AVX512_BF16 or AMX.
NUMBERS, PAIRS, AMX = range(3)


class MachineCodeError(RuntimeError):
    """Raised if machine code cannot be compiled on this machine."""


class Product(
    namedtuple(
        "Product",
        "is_double transpose_a transpose_b m n k a lda b ldb c ldc bias blas",
        defaults=(0,),
    )
):
    """The product C = A B + bias, computed by the BLAS, of C-contiguous matrices (m, k) and (k, n).

    ``lda`` is the stride between rows of A in memory, in elements. ``bias`` is added to each row of
    C. ``blas`` is the address of the BLAS function, which `link` sets.
    """


class ColumnSums(namedtuple("ColumnSums", "is_double n_rows n_columns x sums")):
    """The sum of each column of ``x : (n_rows, n_columns)``."""


class Take(namedtuple("Take", "is_double n_source n_rows width source positions out")):
    """Copy the rows of ``source`` at ``positions`` (int32).

    ``width`` is the length of a row in bytes; ``is_double`` is not used.
    """


class AddRows(namedtuple("AddRows", "is_double n_sums n_rows width source positions out")):
    """Sum the rows of ``source`` with the same position (int32) into one row of ``out``."""


class FormulaLoop(
    namedtuple(
        "FormulaLoop",
        "is_double loop n_rows n_columns n_inner size strides array_0 array_1 array_2 array_3 "
        "array_4 array_5 array_6 array_7 array_8 array_9 array_10 array_11 array_12 array_13 "
        "array_14 array_15",
    )
):
    """The loop of a `mlp_xp.compiler` kernel over arrays with ``n_rows`` rows.

    ``loop`` is the kernel; in a record, its position in `loops.LOOPS`. The arrays are the inputs,
    then the results. If the loop sums rows, the last row ends after ``size`` elements in total.
    Views have the shape (``n_rows / n_inner``, ``n_inner``, ``n_columns``), with ``strides`` in
    bytes.
    """

    @property
    def grid(self) -> tuple[int, int, int]:
        """The numbers of row groups, rows per group, and columns."""
        return self.n_rows // self.n_inner, self.n_inner, self.n_columns

    @property
    def arrays(self) -> tuple[Any, ...]:
        """The inputs, then the results."""
        kernel: Kernel = self.loop
        n_arrays = len(kernel.inputs) + len(kernel.wanted)
        return tuple(self[_FIRST_ARRAY : _FIRST_ARRAY + n_arrays])

    @property
    def results(self) -> tuple[Any, ...]:
        """The arrays that the loop writes."""
        return self.arrays[len(self.loop.inputs) :]


_FIRST_ARRAY = FormulaLoop._fields.index("array_0")
# The maximum number of inputs and results of a formula's loop.
MOST_ARRAYS = len(FormulaLoop._fields) - _FIRST_ARRAY


def formula_loop(
    kernel: Kernel,
    grid: tuple[int, ...],
    inputs: Sequence[Any],
    results: Sequence[Any],
    size: int | None = None,
) -> FormulaLoop:
    """Return the call of a kernel's loop for a grid of (row groups, rows and) columns.

    ``size`` is the total number of elements, if the last row is shorter.
    """
    size = math.prod(grid) if size is None else size
    *outer, n_columns = (1, size) if kernel.is_flat else grid
    kernel = kernel._replace(is_narrow=not kernel.is_flat and n_columns < 2 * LANES)
    arrays = [*inputs, *results]
    strides: Any = 0
    if not {*kernel.layouts}.isdisjoint(VIEWS):
        given = zip(arrays, kernel.layouts, strict=False)
        strides = np.asarray([
            getattr(x, "value", x).strides if layout in VIEWS else (0, 0, 0) for x, layout in given
        ])  # fmt: skip
    arrays += [0] * (MOST_ARRAYS - len(arrays))
    is_double = arrays[0].dtype == np.float64
    rows = math.prod(outer), n_columns, outer[-1]
    return FormulaLoop._make((is_double, kernel, *rows, size, strides, *arrays))


class Softmax(namedtuple("Softmax", "is_double n k logits labels weights smoothing value dlogits")):
    """The mean softmax cross-entropy of ``logits : (n, k)``, and its gradient.

    ``smoothing`` is an array with one float64 element.
    """


class Copy(namedtuple("Copy", "is_double n_words layout source out")):
    """Copy runs of ``n_words`` 64-bit words between arrays with different axis orders.

    ``layout : (3, 5)`` contains the lengths of the axes around the runs, and their strides in the
    source and in the result, in words.
    """


class Group(namedtuple("Group", "is_double n_parts n_tasks table")):
    """Kernel calls in ``n_parts`` parts of ``n_tasks`` calls; each part runs in one thread."""


class GradientLoop(
    namedtuple(
        "GradientLoop",
        "is_double table strides place n_rows n_blocks x dy panel n_samples width fan_in",
    )
):
    """A gradient x^T dy, computed in blocks of ``n_rows`` rows that a loop reads.

    ``table`` contains one `FormulaLoop`, whose input at position ``place`` is the gradient, of
    shape (``fan_in``, ``width``). ``strides`` are the distances in bytes between blocks of each of
    its arrays. ``n_blocks`` are computed at a time; their number of rows is a divisor or a multiple
    of `PANEL`. dy is packed in panels of ``panel`` columns, or not packed if that is 0.
    """


class Pack(
    namedtuple(
        "Pack",
        "is_double in_pairs n_rows n_columns source ld columns columns_width rows "
        "rows_width lines lines_ld",
        defaults=(0, 0, 0, 0, 0, 0),
    )
):
    """Pack an operand of a matrix product in up to three orders; an unused order's address is 0.

    ``columns`` and ``rows`` are panels of ``width`` lanes, stored one step of the sum after
    another. In ``columns``, lanes are columns of the source, and sums are over the source's rows.
    In ``rows``, lanes are rows of the source, and sums are over columns. ``lines`` are the rows of
    the source, with a stride of ``lines_ld`` words. With ``in_pairs``, each step has two elements,
    rounded to bfloat16 and padded with 0. ``ld`` is the stride between rows of the source, in
    elements.

    For AMX, the number of steps is a multiple of 16. ``lines``, and ``columns`` with a width of 0,
    are left operands: they are stored in tiles of 16 rows and 16 steps, one tile after another.
    """


class TiledProduct(
    namedtuple(
        "TiledProduct",
        "is_double in_pairs m n n_steps a a_row a_tile a_step b b_column b_step width c "
        "ldc bias steps_at_once depth rows_at_once columns_at_once way",
    )
):
    """The product C = A B + bias in tiles, for ``C : (m, n)`` and sums of ``n_steps`` steps.

    Each operand may be packed or not. Strides are in steps of the sum or in elements. In A,
    ``a_row`` is the stride between the rows of a tile, ``a_tile`` the stride between tiles (per
    row), and ``a_step`` the stride between steps. In B, ``b_column`` is the stride between panels
    (per column), and ``b_step`` the stride between steps. Panels of B have ``width`` columns;
    ``width`` is 0 if B is not packed. The loops, from outer to inner, are over ``steps_at_once``,
    blocks of C of ``rows_at_once`` by ``columns_at_once``, ``depth`` steps, and tiles.
    """


KINDS: tuple[type, ...] = (
    Product,
    ColumnSums,
    Take,
    AddRows,
    FormulaLoop,
    Softmax,
    Copy,
    Group,
    GradientLoop,
    Pack,
    TiledProduct,
)


class Task(NamedTuple):
    """A kernel call.

    Attributes
    ----------
    fields : Any
        A record of one of the `KINDS`.
    is_shared : bool
        Whether threads share the work.
    others : tuple
        Arrays to keep alive, as the fields contain only their addresses.
    """

    fields: Any
    is_shared: bool = False
    others: tuple[Any, ...] = ()


_HEADER = ("code", "kind", "is_shared", "is_double")


def _dtype(names: Sequence[str], n_words: int) -> np.dtype:
    offsets = [8 * i for i in range(len(names))]
    layout: Any = {"names": names, "formats": [np.int64] * len(names), "offsets": offsets}
    return np.dtype(layout | {"itemsize": 8 * n_words})


# The first fields in every record; ``code`` is the address of the compiled function.
HEADER = _dtype(_HEADER, WORDS)
# A copy of ``n_words`` 32-bit words at the start of each step. A stride is the distance in bytes
# between the addresses for consecutive steps, or 0 for a fixed address.
PICK = _dtype(("source", "source_stride", "n_words", "target", "target_stride"), 5)
# A step range: the table of kernel calls that run for each step from ``start`` to ``stop``.
STEP_RANGE = _dtype(("table", "n_tasks", "picks", "n_picks", "start", "stop"), 6)


@functools.cache
def record(kind: Any) -> np.dtype:
    """Return the record dtype for a kind of kernel call."""
    return _dtype((*_HEADER[:-1], *kind._fields), WORDS)


def number_of(kind: type) -> int:
    """Return the number, from 1, that identifies a kind in records."""
    return KINDS.index(kind) + 1


def read(row: np.ndarray) -> Any:
    """Return a row of a table as a record that shares the row's memory."""
    kind = KINDS[int(row.view(HEADER)[0]["kind"]) - 1]
    return row.view(record(kind))[0]


class Unit(NamedTuple):
    """A compilation unit: a kind of kernel call, for one dtype and one variant.

    Kind 0 is the loop that runs a table of kernel calls.
    """

    kind: int
    is_double: int = 0
    variant: int = 0

    @property
    def name(self) -> str:
        return "mlp_xp_{}_{}_{}".format(*self)

    @classmethod
    def for_task(cls, task: Any) -> Unit:
        """Return the compilation unit for a kernel call, given as a record."""
        name = _VARIANTS.get(KINDS[int(task["kind"]) - 1])
        return cls(int(task["kind"]), int(task["is_double"]), int(task[name]) if name else 0)


# The field that selects a unit's variant.
_VARIANTS: dict[type, str] = {
    FormulaLoop: "loop",
    Pack: "in_pairs",
    TiledProduct: "in_pairs",
}


def all_units(*, has_tile: bool, packing: int) -> list[Unit]:
    """Return all compilation units for a processor, with tiled products if ``has_tile`` is true.

    Formulas' loops are excluded, since their number is unlimited.

    ``packing`` is the processor's bfloat16 format, or `NUMBERS` if it has none.
    """
    units = [Unit(0)]
    for kind in KINDS:
        if kind is FormulaLoop or (kind in (GradientLoop, Pack, TiledProduct) and not has_tile):
            continue
        dtypes = (0,) if kind in (Take, Copy, Group) else (0, 1)
        units += [Unit(number_of(kind), is_double) for is_double in dtypes]
    pairs = [Unit(number_of(kind), 0, packing) for kind in (Pack, TiledProduct)]
    return units + pairs if packing else units


def table(tasks: Sequence[Task]) -> tuple[np.ndarray, list[Any]]:
    """Return tasks as a table, (tasks, WORDS) int64, and their arrays as (row, column, array)."""
    records = np.zeros((len(tasks), WORDS), np.int64)
    arrays = []
    for row, task in enumerate(tasks):
        kind = type(task.fields)
        given = (0, number_of(kind), task.is_shared, *task.fields)
        for column, value in enumerate(given):
            if hasattr(value, "dtype"):
                arrays.append((row, column, value))
                value = address(value)
            elif isinstance(value, Kernel):
                value = position_of(value)
            records[row, column] = value
    return records, arrays


def step_range(records: np.ndarray, picks: np.ndarray | None = None) -> np.ndarray:
    """Return a `STEP_RANGE` of one step, (1, 6) int64; the caller must keep both arrays alive."""
    picked = (0, 0) if picks is None else (address(picks), len(picks))
    return np.asarray([[address(records), len(records), *picked, 0, 1]], np.int64)


def address(array: Any) -> int:
    """Return the address of an array, which may be traced."""
    value = getattr(array, "value", array)
    assert isinstance(value, np.ndarray)  # A scalar's copy would be freed at once.
    place: int = value.__array_interface__["data"][0]
    return place
