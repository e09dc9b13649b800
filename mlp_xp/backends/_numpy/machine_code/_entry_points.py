"""The compilation units: one per kind of kernel call, and a loop that runs tables of calls.

A unit reads the fields of a kernel call by name, and computes one thread's part. Only compiler
processes import this module, since it needs numba.
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
)
from mlp_xp.backends._numpy.machine_code._loops import (
    make_add_rows,
    make_column_sums,
    make_copy,
    make_gradient_loop,
    make_group,
    make_take,
)
from mlp_xp.backends._numpy.machine_code._packing import make_pack
from mlp_xp.backends._numpy.machine_code._products import (
    add_parts,
    make_product,
    make_tiled_product,
)
from mlp_xp.backends._numpy.machine_code._softmax import make_softmax
from mlp_xp.backends._numpy.machine_code._threads import (
    choose_threads,
    publish,
    run_parts,
    serve,
    wait_for,
)
from mlp_xp.backends._numpy.runtime import tasks
from mlp_xp.backends._numpy.runtime.tasks import HEADER, PICK, STEP_RANGE, Unit, number_of, record
from mlp_xp.backends._numpy.runtime.tuning import (
    CONTROL,
    IS_ALONE,
    N_THREADS,
    QUIT,
    SCRATCH,
    TASK,
    TICKET,
)

_TASK_BYTES = HEADER.itemsize
_TAKE, _PRODUCT = map(number_of, (tasks.Take, tasks.TiledProduct))
_TAKE_TASK = record(tasks.Take)


def signature(unit: Unit) -> Any:
    """Return the numba signature of a unit."""
    if unit.kind == 0:
        return types.int64(*[types.int64] * 5)
    return types.void(*[types.int64] * 4)


def source(unit: Unit) -> Callable[..., Any]:
    """Return the Python function to compile for a unit."""
    if unit.kind == 0:
        return run_tasks
    return _MAKERS[tasks.KINDS[unit.kind - 1]](bool(unit.is_double), unit.variant)


_MAKERS: dict[type, Callable[[bool, int], Any]] = {
    tasks.Product: make_product,
    tasks.ColumnSums: make_column_sums,
    tasks.Take: make_take,
    tasks.AddRows: make_add_rows,
    tasks.Softmax: make_softmax,
    tasks.Copy: make_copy,
    tasks.Group: make_group,
    tasks.GradientLoop: make_gradient_loop,
    tasks.Pack: make_pack,
    tasks.TiledProduct: make_tiled_product,
}


# --- a table of tasks -----------------------------------------------------------------------------


@jit
def _has_its_rows(address, kind):  # type: ignore[no-untyped-def]
    """Whether all row positions are valid; negative positions count from the end, as in NumPy."""
    if kind != _TAKE:
        return True
    task = carray(pointer(address), 1, _TAKE_TASK)[0]
    rows = carray(pointer(task.positions), task.n_rows, np.int32)
    lowest, highest = np.int64(0), np.int64(-1)
    for i in range(rows.size):
        lowest, highest = min(lowest, rows[i]), max(highest, rows[i])
    return -task.n_source <= lowest and highest < task.n_source


def run_tasks(control, scratch, ranges, n_ranges, thread):  # type: ignore[no-untyped-def]
    """Run step ranges of tables of kernel calls (thread 0), or help thread 0 (other threads).

    Thread 0 is the caller. It runs the kernel calls in order, and the other threads compute parts
    of each kernel call that is marked as shared. A call with ``n_ranges=-1`` stops the other
    threads. Thread 0 announces a kernel call by writing a single integer, the ticket, so threads
    never see an incomplete state.

    ``control``, with the number of threads at `N_THREADS`, and ``scratch``, with `SCRATCH` bytes
    per thread, are the addresses of the pool's memory. ``ranges``, which only thread 0 uses, is the
    address of ``n_ranges`` records of type `STEP_RANGE`. Return 0, or the address of a kernel call
    with invalid row positions, which ends the run.
    """
    control_words = carray(pointer(control), CONTROL, np.int64)
    n_threads, ticket = control_words[N_THREADS], control_words[TICKET]
    if thread > 0:
        serve(control, thread, n_threads, scratch)
        return 0
    if n_ranges < 0:
        publish(control, QUIT)
        return 0
    ranges_ = carray(pointer(ranges), n_ranges, STEP_RANGE)
    for number in range(n_ranges):
        steps = ranges_[number]
        pick_table = carray(pointer(steps.picks), steps.n_picks, PICK)
        for step in range(steps.start, steps.stop):
            start, has_shared = nanoseconds() if n_threads > 1 else 0, False
            for i in range(steps.n_picks):
                pick = pick_table[i]
                source = pick.source + step * pick.source_stride
                copy(source, pick.target + step * pick.target_stride, pick.n_words)
            for i in range(steps.n_tasks):
                address = steps.table + i * _TASK_BYTES
                task = carray(pointer(address), 1, HEADER)[0]
                if not _has_its_rows(address, task.kind):
                    return address
                n_working = n_threads if task.is_shared else 1
                has_shared |= n_working > 1
                if n_working > 1 and control_words[IS_ALONE]:
                    for part in range(n_threads):
                        call(task.code, address, part, n_threads, scratch + part * SCRATCH)
                elif n_working > 1:
                    control_words[TASK] = address
                    ticket += 1
                    publish(control, ticket)
                    run_parts(control, ticket, 0, n_threads, scratch)
                    wait_for(control, ticket, n_threads)
                else:
                    call(task.code, address, 0, 1, scratch)
                if task.kind == _PRODUCT and n_working > 1:
                    add_parts(address, n_working, scratch)
            if has_shared:
                choose_threads(control_words, n_threads, steps.table, nanoseconds() - start)
    return 0
