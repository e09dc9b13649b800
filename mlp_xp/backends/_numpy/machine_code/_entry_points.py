"""The units of machine code: one per kind of kernel call, and a loop that runs tables of calls.

A unit reads the fields of a kernel call by name, and computes one thread's part. Only processes
that compile import this module, since it needs numba.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import carray, types

from mlp_xp.backends._numpy.machine_code._intrinsics import (
    call,
    copy,
    jit,
    nanoseconds,
    pointer,
    start_of,
)
from mlp_xp.backends._numpy.machine_code._loops import (
    SOFTMAX_ROWS,
    add_rows,
    copy_runs,
    gather,
    make_gradient_loop,
    softmax,
    sum_rows,
)
from mlp_xp.backends._numpy.machine_code._packing import make_pack
from mlp_xp.backends._numpy.machine_code._products import (
    add_parts,
    by_columns,
    make_product,
    make_tiled_product,
)
from mlp_xp.backends._numpy.machine_code._threads import (
    choose_threads,
    publish,
    run_parts,
    serve,
    wait_for,
)
from mlp_xp.backends._numpy.native import jobs
from mlp_xp.backends._numpy.native.jobs import HEADER, PICK, TURN, Unit, number_of, record
from mlp_xp.backends._numpy.native.tuning import (
    IS_ALONE,
    JOB,
    MAIL,
    N_THREADS,
    QUIT,
    SCRATCH,
    TICKET,
)

_JOB_BYTES = HEADER.itemsize
_GATHER, _TAKE = map(number_of, (jobs.Gather, jobs.Take))
_PRODUCT = number_of(jobs.TiledProduct)
_COLUMN_SUMS_JOB, _GATHER_JOB, _TAKE_JOB = map(record, (jobs.ColumnSums, jobs.Gather, jobs.Take))
_ADD_ROWS_JOB, _SOFTMAX_JOB = map(record, (jobs.AddRows, jobs.Softmax))
_COPY_JOB, _GROUP_JOB = map(record, (jobs.Copy, jobs.Group))


def signature(unit: Unit) -> Any:
    """Return the numba signature of a unit."""
    if unit.kind == 0:
        return types.int64(*[types.int64] * 5)
    return types.void(*[types.int64] * 4)


def source(unit: Unit) -> Callable[..., Any]:
    """Return the Python function that is compiled for a unit."""
    if unit.kind == 0:
        return run_jobs
    return _MAKERS[jobs.KINDS[unit.kind - 1]](bool(unit.is_double), unit.variant)


def _gather(is_double: bool, is_bytes: int) -> Any:
    number = np.float64 if is_double else np.float32
    source = np.uint8 if is_bytes else number

    def unit(address, thread, n_threads, scratch):  # type: ignore[no-untyped-def]
        job = carray(pointer(address), 1, _GATHER_JOB)[0]
        n, width = job.n_rows, job.width
        low, high, left, right = 0, n, 0, width
        if by_columns(width, n_threads):
            left, right = start_of(thread, n_threads, width), start_of(thread + 1, n_threads, width)
        else:
            low, high = start_of(thread, n_threads, n), start_of(thread + 1, n_threads, n)
        x = carray(pointer(job.source), (job.n_source, width), source)
        rows = carray(pointer(job.positions), n, np.int32)
        shift = carray(pointer(job.shift), width, number)
        scale = carray(pointer(job.scale), width, number)
        out = carray(pointer(job.out), (n, width), number)
        has_rows, has_scaling = job.positions != 0, job.shift != 0
        gather(x, rows, has_rows, shift, scale, has_scaling, out, low, high, left, right)

    return unit


def _column_sums(is_double: bool, _: int) -> Any:
    number = np.float64 if is_double else np.float32

    def unit(address, thread, n_threads, scratch):  # type: ignore[no-untyped-def]
        job = carray(pointer(address), 1, _COLUMN_SUMS_JOB)[0]
        n = job.n_columns
        low, high = start_of(thread, n_threads, n), start_of(thread + 1, n_threads, n)
        x = carray(pointer(job.x), (job.n_rows, n), number)
        sum_rows(x, carray(pointer(job.sums), n, number), low, high)

    return unit


def _take(is_double: bool, _: int) -> Any:
    def unit(address, thread, n_threads, scratch):  # type: ignore[no-untyped-def]
        job = carray(pointer(address), 1, _TAKE_JOB)[0]
        positions = carray(pointer(job.positions), job.n_rows, np.int32)
        for i in range(job.n_rows):
            row = positions[i] if job.positions else i
            row += job.n_source if row < 0 else 0
            copy(job.source + 4 * job.width * row, job.out + 4 * job.width * i, job.width)

    return unit


def _add_rows(is_double: bool, _: int) -> Any:
    number = np.float64 if is_double else np.float32

    def unit(address, thread, n_threads, scratch):  # type: ignore[no-untyped-def]
        job = carray(pointer(address), 1, _ADD_ROWS_JOB)[0]
        rows = carray(pointer(job.source), (job.n_rows, job.width), number)
        positions = carray(pointer(job.positions), job.n_rows, np.int32)
        add_rows(rows, positions, carray(pointer(job.out), (job.n_sums, job.width), number))

    return unit


def _copy(is_double: bool, _: int) -> Any:
    def unit(address, thread, n_threads, scratch):  # type: ignore[no-untyped-def]
        job = carray(pointer(address), 1, _COPY_JOB)[0]
        layout = carray(pointer(job.layout), (3, 5), np.int64)
        n = layout[0, 0]
        low, high = n * thread // n_threads, n * (thread + 1) // n_threads
        copy_runs(job.n_words, layout, job.source, job.out, low, high)

    return unit


def _group(is_double: bool, _: int) -> Any:
    def unit(address, thread, n_threads, scratch):  # type: ignore[no-untyped-def]
        group = carray(pointer(address), 1, _GROUP_JOB)[0]
        first = group.n_parts * thread // n_threads
        last = group.n_parts * (thread + 1) // n_threads
        for i in range(first * group.n_jobs, last * group.n_jobs):
            place = group.table + i * _JOB_BYTES
            job = carray(pointer(place), 1, HEADER)[0]
            call(job.code, place, 0, 1, scratch)

    return unit


def _softmax(is_double: bool, _: int) -> Any:
    number = np.float64 if is_double else np.float32

    def unit(address, thread, n_threads, scratch):  # type: ignore[no-untyped-def]
        job = carray(pointer(address), 1, _SOFTMAX_JOB)[0]
        n, k = job.n, job.k
        logits = carray(pointer(job.logits), (n, k), number)
        labels = carray(pointer(job.labels), n, np.int32)
        weights = carray(pointer(job.weights), n, number)
        smoothing = number(carray(pointer(job.smoothing), 1, np.float64)[0])
        value = carray(pointer(job.value), 1, number)
        dlogits = carray(pointer(job.dlogits), (n, k), number)
        powers = carray(pointer(job.dlogits), n * k, number)
        largest = carray(pointer(scratch), SOFTMAX_ROWS, number)
        softmax(
            logits, labels, weights, job.weights != 0, smoothing, value, dlogits, powers, largest
        )

    return unit


_MAKERS: dict[type, Callable[[bool, int], Any]] = {
    jobs.Product: make_product,
    jobs.ColumnSums: _column_sums,
    jobs.Gather: _gather,
    jobs.Take: _take,
    jobs.AddRows: _add_rows,
    jobs.Softmax: _softmax,
    jobs.Copy: _copy,
    jobs.Group: _group,
    jobs.GradientLoop: make_gradient_loop,
    jobs.Pack: make_pack,
    jobs.TiledProduct: make_tiled_product,
}


# --- a table of jobs ------------------------------------------------------------------------------


@jit
def _has_its_rows(address, kind):  # type: ignore[no-untyped-def]
    """Whether all row positions are valid; negative positions count from the end, as in NumPy."""
    if kind != _GATHER and kind != _TAKE:
        return True
    job = carray(pointer(address), 1, _TAKE_JOB)[0]  # `Gather` starts with the same fields.
    if job.positions == 0:
        return True
    rows = carray(pointer(job.positions), job.n_rows, np.int32)
    lowest, highest = np.int64(0), np.int64(-1)
    for i in range(rows.size):
        lowest, highest = min(lowest, rows[i]), max(highest, rows[i])
    return -job.n_source <= lowest and highest < job.n_source


def run_jobs(mail, scratch, turns, n_turns, thread):  # type: ignore[no-untyped-def]
    """Run step ranges of tables of kernel calls (thread 0), or help thread 0 (other threads).

    Thread 0 is the caller. It runs the kernel calls in order, and the other threads compute parts
    of each kernel call that is marked as shared. A call with ``n_turns=-1`` stops the other
    threads. Thread 0 announces a kernel call by writing a single integer, the ticket, so threads
    never see an incomplete state.

    ``mail``, with the number of threads at `N_THREADS`, and ``scratch``, with `SCRATCH` bytes per
    thread, are the addresses of the pool's memory.
    ``turns``, which only thread 0 uses, is the address of ``n_turns`` records of type `TURN`.
    Return 0, or the address of a kernel call with invalid row positions, before which the run
    stops.
    """
    letters = carray(pointer(mail), MAIL, np.int64)
    n_threads, ticket = letters[N_THREADS], letters[TICKET]
    if thread > 0:
        serve(mail, thread, n_threads, scratch)
        return 0
    if n_turns < 0:
        publish(mail, QUIT)
        return 0
    turn_table = carray(pointer(turns), n_turns, TURN)
    for number in range(n_turns):
        turn = turn_table[number]
        pick_table = carray(pointer(turn.picks), turn.n_picks, PICK)
        for step in range(turn.start, turn.stop):
            start, has_shared = nanoseconds() if n_threads > 1 else 0, False
            for i in range(turn.n_picks):
                pick = pick_table[i]
                source = pick.source + step * pick.source_stride
                copy(source, pick.target + step * pick.target_stride, pick.n_words)
            for i in range(turn.n_jobs):
                address = turn.table + i * _JOB_BYTES
                job = carray(pointer(address), 1, HEADER)[0]
                if not _has_its_rows(address, job.kind):
                    return address
                n_working = n_threads if job.is_shared else 1
                has_shared |= n_working > 1
                if n_working > 1 and letters[IS_ALONE]:
                    for part in range(n_threads):
                        call(job.code, address, part, n_threads, scratch + part * SCRATCH)
                elif n_working > 1:
                    letters[JOB] = address
                    ticket += 1
                    publish(mail, ticket)
                    run_parts(mail, ticket, 0, n_threads, scratch)
                    wait_for(mail, ticket, n_threads)
                else:
                    call(job.code, address, 0, 1, scratch)
                if job.kind == _PRODUCT and n_working > 1:
                    add_parts(address, n_working, scratch)
            if has_shared:
                choose_threads(letters, n_threads, turn.table, nanoseconds() - start)
    return 0
