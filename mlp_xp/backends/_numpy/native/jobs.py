"""The format of jobs: what machine code does in one go, and with which arrays and sizes.

A job is a record of 64-bit integers with named fields: a header, then the fields of its kind. Here
is the only description of them: NumPy kernels fill them by name, and machine code reads the same
names. A field for an array holds its address, 0 for none.
"""

from __future__ import annotations

import functools
from collections import namedtuple
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

WORDS = 24  # 64-bit integers of a job.
# The rules of an update: gradient descent with momentum, or Adam with and without decay.
MOMENTUM, ADAM = range(2)
# The functions of an activation.
RELU, LOGISTIC = range(2)
# How a product is computed: by tiles, also with the steps split between threads, or without tiles.
TILES, MAY_SPLIT_STEPS, FEW_ROWS = range(3)
# How factors are packed: as numbers, or as pairs of bfloat16 for AVX512_BF16 or for AMX.
NUMBERS, PAIRS, AMX = range(3)


class MachineCodeError(RuntimeError):
    """Machine code that cannot be compiled here."""


class Product(
    namedtuple(
        "Product",
        "is_double transpose_a transpose_b m n k a lda b ldb c ldc bias blas",
        defaults=(0,),
    )
):
    """C = A B + bias: (m, n), (m, k) and (k, n), all stored row by row.

    ``lda`` is the distance between rows of A as stored, in numbers; ``bias`` is a row that is added
    to each row of C; ``blas`` is the address of the BLAS's product, written by `link`.
    """


class ColumnSums(namedtuple("ColumnSums", "is_double n_rows n_columns x sums")):
    """The sums of the columns of x : (n_rows, n_columns)."""


class Take(namedtuple("Take", "is_double n_source n_rows width source positions out")):
    """Rows of a source, copied: its positions are int32, 0 takes the rows in their order.

    ``width`` is of a row, in words of 32 bits; ``is_double`` is not used.
    """


class Gather(
    namedtuple(
        "Gather", "is_double n_source n_rows width source positions shift scale out is_bytes"
    )
):
    """Rows of a source, cast and scaled: (x - shift) * scale. Begins as `Take` does.

    ``width`` is of a row, in numbers; ``is_bytes`` is whether the source is uint8.
    """


class ActivateArray(namedtuple("ActivateArray", "is_double size x dy out function")):
    """An activation y of x, or its gradient dx from y and dy, where ``x`` holds y."""


class Softmax(namedtuple("Softmax", "is_double n k logits labels weights smoothing value dlogits")):
    """The softmax cross-entropy of logits : (n, k), averaged, and its gradient.

    ``smoothing`` is one float64.
    """


class Arithmetic(namedtuple("Arithmetic", "is_double is_product a b out")):
    """The sum or the product of two numbers."""


class Update(
    namedtuple("Update", "is_double n_arrays arrays rule constants rate l2 penalty shrink")
):
    """One step of a rule for all arrays, and the L2 penalty before it.

    ``arrays`` are of `UPDATED_ARRAY`; ``constants`` of the rule are in float64.
    """


class Pack(
    namedtuple(
        "Pack",
        "is_double in_pairs n_rows n_columns source ld columns columns_width rows "
        "rows_width lines lines_ld",
        defaults=(0, 0, 0, 0, 0, 0),
    )
):
    """A factor of a product in the orders in which tiles read it; 0 for an order not wanted.

    Panels of ``width`` lanes, step after step of the sum: lanes are columns of the source and sums
    go over its rows in ``columns``, the reverse in ``rows``. A step is a number or, ``in_pairs``,
    two that are rounded to bfloat16, a missing one 0; ``lines`` are the rows of the source in such
    pairs, ``lines_ld`` words apart, whole vectors. ``ld`` is the distance between rows of the
    source, in numbers.

    For AMX, sums have a multiple of 16 steps, and a left factor lies in tiles of 16 rows of 16
    steps, one after the other: ``lines``, and ``columns`` with a width of 0.
    """


class TiledProduct(
    namedtuple(
        "TiledProduct",
        "is_double in_pairs m n n_steps a a_row a_tile a_step b b_column b_step width c "
        "ldc bias steps_at_once depth rows_at_once columns_at_once way",
    )
):
    """C = A B + bias by tiles: (m, n), n_steps steps of the sum; each factor as it lies or packed.

    Distances are in steps of the sum or numbers: of A from row to row of a tile, of tiles, a row,
    and from step to step; of B from panel to panel, a column, and from step to step. B's panels
    have ``width`` columns, 0 where B lies as it is. Loops go over ``steps_at_once``, then
    ``columns_at_once`` by ``rows_at_once`` of C, then ``depth`` steps, then tiles.
    """


KINDS: tuple[type, ...] = (
    Product,
    ColumnSums,
    Take,
    Gather,
    ActivateArray,
    Softmax,
    Arithmetic,
    Update,
    Pack,
    TiledProduct,
)


class Job(NamedTuple):
    """A job: the fields of one of `KINDS`, and whether several threads are worth it."""

    fields: Any
    is_shared: bool = False


_HEADER = ("code", "kind", "is_shared", "is_double")


def _dtype(names: Sequence[str], n_words: int) -> np.dtype:
    offsets = [8 * i for i in range(len(names))]
    layout: Any = {"names": names, "formats": [np.int64] * len(names), "offsets": offsets}
    return np.dtype(layout | {"itemsize": 8 * n_words})


# What every job begins with; ``code`` is the address of its machine code.
HEADER = _dtype(_HEADER, WORDS)
# An array that is updated. Where its gradient is a product x^T dy that nobody has computed,
# ``n_samples`` is not 0 and the update computes it: see `fused`.
_UPDATED = ("size", "is_matrix", "param", "grad", "state_1", "state_2")
_UPDATED_BY_PRODUCT = ("x", "dy", "n_samples", "width")
UPDATED_ARRAY = _dtype((*_UPDATED, *_UPDATED_BY_PRODUCT), 10)
# What is copied before each of many steps, from or to a fixed place: the strides are the distances
# in bytes from one step's to the next, ``n_words`` are of 32 bits.
PICK = _dtype(("source", "source_stride", "n_words", "target", "target_stride"), 5)
# The run of a table for each of some steps.
TURN = _dtype(("table", "n_jobs", "picks", "n_picks", "start", "stop"), 6)


@functools.cache
def record(kind: Any) -> np.dtype:
    """Return the dtype of a job of a kind."""
    return _dtype((*_HEADER[:-1], *kind._fields), WORDS)


def number_of(kind: type) -> int:
    """Return the number that stands for a kind, from 1."""
    return KINDS.index(kind) + 1


def read(row: np.ndarray) -> Any:
    """Return the record of a row of a table, which it shares the memory of."""
    kind = KINDS[int(row.view(HEADER)[0]["kind"]) - 1]
    return row.view(record(kind))[0]


class Unit(NamedTuple):
    """A unit of compilation: a kind of job, its dtype, and which of several variants.

    Kind 0 is the loop that runs a table of jobs.
    """

    kind: int
    is_double: int = 0
    variant: int = 0

    @property
    def name(self) -> str:
        return "mlp_xp_{}_{}_{}".format(*self)

    @classmethod
    def for_job(cls, job: Any) -> Unit:
        """Return the unit that does a job, given as a record."""
        name = _VARIANTS.get(KINDS[int(job["kind"]) - 1])
        return cls(int(job["kind"]), int(job["is_double"]), int(job[name]) if name else 0)


# Which field of a job decides, beside its dtype, how it is compiled.
_VARIANTS: dict[type, str] = {
    Gather: "is_bytes",
    ActivateArray: "function",
    Update: "rule",
    Pack: "in_pairs",
    TiledProduct: "in_pairs",
}


def all_units(*, has_tile: bool, packing: int) -> list[Unit]:
    """Return every unit that there is for a processor with our own products, or without.

    ``packing`` is its format of pairs, `NUMBERS` without one.
    """
    units = [Unit(0), Unit(number_of(Take))]
    for kind in KINDS:
        if kind is Take or (kind in (Pack, TiledProduct) and not has_tile):
            continue
        has_two = kind in _VARIANTS and kind not in (Pack, TiledProduct)
        variants = (0, 1) if has_two else (NUMBERS,)
        units += [Unit(number_of(kind), d, variant) for d in (0, 1) for variant in variants]
    # Pairs of bfloat16 are made of float32.
    pairs = [Unit(number_of(kind), 0, packing) for kind in (Pack, TiledProduct)]
    return units + pairs if packing else units


def table(jobs: Sequence[Job]) -> tuple[np.ndarray, list[Any]]:
    """Write jobs into memory.

    Returns
    -------
    records : (jobs, WORDS) int64
    arrays : list of (row, column, array)
        Where an address stands, and of what.
    """
    records = np.zeros((len(jobs), WORDS), np.int64)
    arrays = []
    for row, job in enumerate(jobs):
        kind = type(job.fields)
        given = (0, number_of(kind), job.is_shared, *job.fields)
        for column, value in enumerate(given):
            if hasattr(value, "dtype"):
                arrays.append((row, column, value))
                value = address(value)
            records[row, column] = value
    return records, arrays


def step_range(records: np.ndarray, picks: np.ndarray | None = None) -> np.ndarray:
    """Return a `TURN` of one step, (1, 6) int64; neither array is kept alive."""
    picked = (0, 0) if picks is None else (address(picks), len(picks))
    return np.asarray([[address(records), len(records), *picked, 0, 1]], np.int64)


def address(array: Any) -> int:
    """Return where an array, traced or not, lies."""
    place: int = getattr(array, "value", array).__array_interface__["data"][0]
    return place
