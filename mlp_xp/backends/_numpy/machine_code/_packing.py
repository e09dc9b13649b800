"""Pack operands of matrix products in the order in which tiles read them.

A block of the source, with one row per vector lane, is read once, rounded to bfloat16 if requested,
and written in up to three orders: panels of columns; panels of rows, which are transposed in
registers; and rows of pairs. A step is one element, or a pair of bfloat16 elements in 32 bits.
"""

from __future__ import annotations

import contextlib
from collections import namedtuple
from typing import Any

from llvmlite import ir
from numba import carray, types

from mlp_xp.backends._numpy.machine_code._intrinsics import instruction, part_of, pointer
from mlp_xp.backends._numpy.machine_code._tile import VECTOR_BYTES
from mlp_xp.backends._numpy.machine_code._vectors import Vectors
from mlp_xp.backends._numpy.runtime.tasks import AMX, Pack, record

__all__ = ["make_pack"]

_PACK_TASK = record(Pack)
# The number of columns packed together: a multiple of each panel width and of a cache line.
_STRIPE = 96
# The number of bfloat16 elements in a row of an AMX tile.
_TILE = 32
_I32, _I64 = ir.IntType(32), ir.IntType(64)
# The arguments of a block's code: the source, the block's position in it, the padded size, and the
# destinations.
_Arguments = namedtuple(
    "_Arguments",
    "source ld row column n_rows n_columns down across "
    "columns columns_width rows rows_width lines lines_ld",
)


def make_pack(is_double: bool, in_pairs: int) -> Any:
    """Return the unit that packs a matrix, divided among threads by columns or by rows."""
    size, per_step = 8 if is_double else 4, 2 if in_pairs else 1
    number = ir.DoubleType() if is_double else ir.FloatType()
    lanes, is_amx = VECTOR_BYTES // size, in_pairs == AMX
    multiple = _TILE if is_amx else per_step

    @instruction(types.void, names=_Arguments._fields)
    def emit(builder: Any, *values: Any) -> None:
        _Block(Vectors(builder, number, VECTOR_BYTES), in_pairs, *values).write()

    def pack(address, thread, n_threads, scratch):  # type: ignore[no-untyped-def]
        task = carray(pointer(address), 1, _PACK_TASK)[0]
        top, bottom, left, right = 0, task.n_rows, 0, task.n_columns
        # The height and width of the padded matrix, counted in steps.
        down = -(-bottom // multiple) * multiple // per_step
        across = -(-right // multiple) * multiple // per_step
        if right >= bottom:
            left = part_of(thread, n_threads, task.n_columns, _STRIPE)
            right = part_of(thread + 1, n_threads, task.n_columns, _STRIPE)
        else:
            top = part_of(thread, n_threads, task.n_rows, _STRIPE)
            bottom = part_of(thread + 1, n_threads, task.n_rows, _STRIPE)
        # Panels of columns are padded with zero rows to whole AMX tiles.
        end = -(-bottom // _TILE) * _TILE if is_amx and task.columns else bottom
        for stripe in range(left, right, _STRIPE):
            for row in range(top, end, lanes):
                for column in range(stripe, min(stripe + _STRIPE, right), lanes * per_step):
                    emit(
                        task.source + size * (row * task.ld + column),
                        task.ld,
                        row,
                        column,
                        bottom - row,
                        right - column,
                        down,
                        across,
                        task.columns,
                        task.columns_width,
                        task.rows if row < bottom else 0,
                        task.rows_width,
                        task.lines if row < bottom else 0,
                        task.lines_ld,
                    )

    return pack


class _Block:
    """The generated code that packs a block of n rows and n steps, for vectors of n lanes."""

    def __init__(self, vectors: Vectors, in_pairs: int, *values: Any) -> None:
        self.vectors, self.builder, self.in_pairs = vectors, vectors.builder, in_pairs
        self.is_amx = in_pairs == AMX
        self.lanes, self.per_step = vectors.lanes, 2 if in_pairs else 1
        self.at = _Arguments(*values)
        self.word = _I64 if vectors.is_double else _I32

    def write(self) -> None:
        """Write the block in each requested order, with masks if the block is incomplete."""
        builder = self.builder
        has_rows = builder.icmp_signed(">=", self.at.n_rows, _I64(self.lanes))
        has_columns = builder.icmp_signed(">=", self.at.n_columns, _I64(self.lanes * self.per_step))
        with builder.if_else(builder.and_(has_rows, has_columns)) as (whole, part):
            for branch, is_whole in ((whole, True), (part, False)):
                with branch:
                    self._write(is_whole)

    def _write(self, is_whole: bool) -> None:
        builder, vectors = self.builder, self.vectors
        source = builder.inttoptr(self.at.source, vectors.number.as_pointer())
        lines = []
        for i in range(self.lanes):
            place, n = builder.gep(source, [builder.mul(_I64(i), self.at.ld)]), None
            if not is_whole:
                is_there = builder.icmp_signed("<", _I64(i), self.at.n_rows)
                n = builder.select(is_there, self.at.n_columns, _I64(0))
            lines.append(self._line(place, n))
        for target, write in (
            (self.at.columns, self._write_columns),
            (self.at.rows, self._write_rows),
            (self.at.lines, self._write_lines),
        ):
            with builder.if_then(builder.icmp_signed("!=", target, _I64(0))):
                write(lines, is_whole)

    def _line(self, place: Any, n: Any) -> Any:
        """Return a row's steps as a vector. If n is not None, read only the first n elements."""
        builder, vectors, found = self.builder, self.vectors, []
        for v in range(self.per_step):
            mask = None
            if n is not None:
                left = builder.sub(n, _I64(v * self.lanes))
                is_any = builder.icmp_signed(">", left, _I64(0))
                mask = vectors.mask(builder.select(is_any, left, _I64(0)))
            found.append(vectors.load(builder.gep(place, [_I64(v * self.lanes)]), mask))
        return vectors.round_pairs(*found) if self.in_pairs else found[0]

    def _write_columns(self, lines: Any, is_whole: bool) -> None:
        """Write panels of columns; a pair contains elements from two rows."""
        steps: list[Any] = [(line,) for line in lines]
        if self.in_pairs:
            halves = zip(lines[::2], lines[1::2], strict=True)
            steps = [self.vectors.interleave(*pair) for pair in halves]
        if not self.is_amx:
            self._write_panels(steps, is_whole)
            return
        is_left = self.builder.icmp_signed("==", self.at.columns_width, _I64(0))
        with self.builder.if_else(is_left) as (left, right):
            with left:
                self._write_tiles(steps, is_whole)
            with right:
                self._write_panels(steps, is_whole)

    def _write_tiles(self, steps: Any, is_whole: bool) -> None:
        """Write half the steps of two AMX tiles, whose rows are columns of the source."""
        builder, lanes, n_steps = self.builder, self.lanes, len(steps)
        nothing = ir.Constant(steps[0][0].type, ir.Undefined)
        first = builder.udiv(self.at.row, _I64(self.per_step))
        inside = builder.urem(first, _I64(lanes))
        tile = builder.mul(builder.sub(first, inside), _I64(lanes))
        for v in range(self.per_step):
            columns = self._transposed([step[v] for step in steps] + [nothing] * n_steps)
            with self._unless(is_whole, None, v * lanes):
                above = builder.mul(builder.add(self.at.column, _I64(v * lanes)), self.at.down)
                place = builder.add(builder.add(above, tile), inside)
                for i, value in enumerate(columns):
                    half = self._shuffle(value, value, range(n_steps))
                    row = builder.add(place, _I64(i * lanes))
                    self._store(half, builder.gep(self._pointer(self.at.columns), [row]))

    def _write_panels(self, steps: Any, is_whole: bool) -> None:
        builder, lanes, width = self.builder, self.lanes, self.at.columns_width
        is_half = builder.icmp_signed("==", width, _I64(lanes // 2))
        for t, step in enumerate(steps):
            for v, value in enumerate(step):
                # Write all steps, since AMX also reads a tile's padding.
                row = None if self.is_amx else t * self.per_step
                with self._unless(is_whole, row, v * lanes):
                    first = self._in_panel(
                        self.at.columns, width, self.at.down, self.at.column, v * lanes
                    )
                    place = builder.gep(first, [builder.mul(self._step(self.at.row, t), width)])
                    with builder.if_else(is_half) as (half, whole):
                        with whole:
                            self._store(value, place)
                        with half:
                            low, high = self._halves(value)
                            self._store(low, place)
                            with self._unless(is_whole, 0, v * lanes + lanes // 2):
                                offset = builder.mul(self.at.down, width)
                                self._store(high, builder.gep(place, [offset]))

    def _write_rows(self, lines: Any, is_whole: bool) -> None:
        """Transpose rows, and write them as panels."""
        builder, width = self.builder, self.at.rows_width
        first = self._in_panel(self.at.rows, width, self.at.across, self.at.row, 0)
        for t, value in enumerate(self._transposed(lines)):
            with self._unless(is_whole or self.is_amx, 0, t * self.per_step):
                place = builder.gep(first, [builder.mul(self._step(self.at.column, t), width)])
                self._store(value, place)

    def _write_lines(self, lines: Any, is_whole: bool) -> None:
        builder, step, ld = self.builder, self._step(self.at.column, 0), self.at.lines_ld
        if self.is_amx:  # AMX reads rows in tiles.
            step, ld = builder.mul(step, _I64(self.lanes)), _I64(self.lanes)
        first = builder.add(builder.mul(self.at.row, self.at.lines_ld), step)
        for i, value in enumerate(lines):
            with self._unless(is_whole or self.is_amx, i, 0):
                place = builder.add(first, builder.mul(_I64(i), ld))
                self._store(value, builder.gep(self._pointer(self.at.lines), [place]))

    def _unless(self, is_whole: bool, row: int | None, column: int) -> Any:
        """Return the context for code that runs only if the block contains this row and column."""
        if is_whole:
            return contextlib.nullcontext()
        is_there = self.builder.icmp_signed("<", _I64(column), self.at.n_columns)
        if row is not None:
            has_row = self.builder.icmp_signed("<", _I64(row), self.at.n_rows)
            is_there = self.builder.and_(has_row, is_there)
        return self.builder.if_then(is_there)

    def _step(self, start: Any, t: int) -> Any:
        return self.builder.add(self.builder.udiv(start, _I64(self.per_step)), _I64(t))

    def _in_panel(self, target: Any, width: Any, n_steps: Any, start: Any, lane: int) -> Any:
        """Return the address of a lane in the first step of its panel."""
        builder = self.builder
        lane = builder.add(start, _I64(lane))
        inside = builder.urem(lane, width)
        panel = builder.mul(builder.sub(lane, inside), n_steps)
        return builder.gep(self._pointer(target), [builder.add(panel, inside)])

    def _pointer(self, target: Any) -> Any:
        return self.builder.inttoptr(target, self.word.as_pointer())

    def _store(self, value: Any, place: Any) -> None:
        pointer = self.builder.bitcast(place, value.type.as_pointer())
        self.builder.store(value, pointer, align=self.word.width // 8)

    def _halves(self, value: Any) -> tuple[Any, Any]:
        n = self.lanes // 2
        return tuple(self._shuffle(value, value, range(start, start + n)) for start in (0, n))

    def _shuffle(self, a: Any, b: Any, lanes: Any) -> Any:
        order = list(lanes)
        return self.builder.shuffle_vector(
            a, b, ir.Constant(ir.VectorType(_I32, len(order)), order)
        )

    def _transposed(self, rows: list[Any]) -> list[Any]:
        """Transpose rows and lanes by swapping blocks; each pass halves the block size."""
        n, rows = self.lanes, list(rows)
        distance = n // 2
        while distance:
            for i in range(n):
                if not i & distance:
                    a, b = rows[i], rows[i + distance]
                    low = (t - distance + n if t & distance else t for t in range(n))
                    high = (t + n if t & distance else t + distance for t in range(n))
                    rows[i], rows[i + distance] = (self._shuffle(a, b, x) for x in (low, high))
            distance //= 2
        return rows
