"""Synchronize the threads of a pool: divide kernel calls among threads, wait, and wake up."""

from __future__ import annotations

import numpy as np
from numba import carray

from mlp_xp.backends._numpy.machine_code._intrinsics import (
    add,
    call,
    jit,
    load,
    pointer,
    replace,
    sleep,
    spin,
    swap,
    wake,
)
from mlp_xp.backends._numpy.runtime.tasks import HEADER
from mlp_xp.backends._numpy.runtime.tuning import (
    AS_BEFORE,
    BEGUN,
    CALLER_SLEEPS,
    CONTROL_OF_THREAD,
    DONE,
    FIRST_STRETCH,
    IS_ALONE,
    LAST_TABLE,
    LONGEST_STRETCH,
    LONGEST_TRIED,
    N_ASLEEP,
    N_STEPS,
    NANOSECONDS,
    QUIT,
    SCRATCH,
    SPINS,
    STRETCH,
    TASK,
    TICKET,
    TRIED_STEPS,
    UNMEASURED,
)

_LINE = 8 * CONTROL_OF_THREAD  # The size of a cache line in bytes.


@jit
def run_parts(control, ticket, thread, n_threads, scratch):  # type: ignore[no-untyped-def]
    """Compute the thread's part of a kernel call, then all parts that no thread has started.

    This way, no thread waits for a thread whose processor runs another program. A part's result
    does not depend on which thread computes it.
    """
    for i in range(n_threads):
        part = (thread + i) % n_threads
        line = control + _LINE * part
        if replace(line + 8 * BEGUN, ticket - 1, ticket):
            address = load(control + 8 * TASK)
            task = carray(pointer(address), 1, HEADER)[0]
            call(task.code, address, part, n_threads, scratch + part * SCRATCH)
            swap(line + 8 * DONE, ticket)
            if load(control + 8 * CALLER_SLEEPS) == 1 + part:
                wake(line + 8 * DONE)


@jit
def serve(control, thread, n_threads, scratch):  # type: ignore[no-untyped-def]
    """Compute parts of each kernel call until the ticket is `QUIT`."""
    ticket, place = np.int64(0), control + 8 * TICKET
    while True:
        spins = 0
        while load(place) == ticket:
            spins += 1
            if spins < SPINS:
                spin()
            else:
                add(control + 8 * N_ASLEEP, 1)
                sleep(place, ticket)
                add(control + 8 * N_ASLEEP, -1)
        ticket = load(place)
        if ticket == QUIT:
            return
        run_parts(control, ticket, thread, n_threads, scratch)


@jit
def publish(control, ticket):  # type: ignore[no-untyped-def]
    """Send a ticket to the other threads, and wake sleeping threads."""
    swap(control + 8 * TICKET, ticket)
    if load(control + 8 * N_ASLEEP) > 0:
        wake(control + 8 * TICKET)


@jit
def wait_for(control, ticket, n_threads):  # type: ignore[no-untyped-def]
    """Wait until all parts of a kernel call are done."""
    for part in range(n_threads):
        place, spins = control + 8 * DONE + _LINE * part, 0
        while True:
            found = load(place)
            if found == ticket:
                break
            spins += 1
            if spins < SPINS:
                spin()
            else:
                swap(control + 8 * CALLER_SLEEPS, 1 + part)
                sleep(place, found)
                swap(control + 8 * CALLER_SLEEPS, 0)


@jit
def choose_threads(control_words, n_threads, table, spent):  # type: ignore[no-untyped-def]
    """Decide after a step of ``spent`` nanoseconds whether the caller continues alone.

    Other threads slow down training if another program uses their processor, or if steps are short
    and the processors are far apart. From time to time, a trial runs a few steps with one thread
    instead of all, or vice versa. Results do not depend on the number of threads, so measured times
    may decide.
    """
    if table != control_words[LAST_TABLE]:  # Do not compare times of different tables.
        control_words[LAST_TABLE] = table
        return
    n_steps, as_before = control_words[N_STEPS] + 1, control_words[AS_BEFORE]
    total = control_words[NANOSECONDS] + (spent if n_steps > UNMEASURED else 0)
    stretch = max(control_words[STRETCH], FIRST_STRETCH * n_threads)
    control_words[N_STEPS], control_words[NANOSECONDS] = n_steps, total
    if n_steps < (TRIED_STEPS if as_before else stretch) and (
        as_before == 0 or total < TRIED_STEPS * as_before
    ):
        return
    mean = total // max(1, n_steps - UNMEASURED)
    control_words[N_STEPS] = control_words[NANOSECONDS] = control_words[AS_BEFORE] = 0
    if as_before and mean < as_before:
        control_words[STRETCH] = 0
    elif as_before:
        control_words[IS_ALONE] = 1 - control_words[IS_ALONE]
        control_words[STRETCH] = min(2 * stretch, LONGEST_STRETCH)
    elif mean < LONGEST_TRIED:
        control_words[IS_ALONE], control_words[AS_BEFORE] = (
            1 - control_words[IS_ALONE],
            max(1, mean),
        )
    else:
        control_words[IS_ALONE] = 0
