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
from mlp_xp.backends._numpy.native.jobs import HEADER
from mlp_xp.backends._numpy.native.tuning import (
    AS_BEFORE,
    BEGUN,
    CALLER_SLEEPS,
    DONE,
    FIRST_STRETCH,
    IS_ALONE,
    JOB,
    LAST_TABLE,
    LONGEST_STRETCH,
    LONGEST_TRIED,
    MAIL_OF_THREAD,
    N_ASLEEP,
    N_STEPS,
    NANOSECONDS,
    QUIT,
    SCRATCH,
    SPINS,
    STRETCH,
    TICKET,
    TRIED_STEPS,
    UNMEASURED,
)

_LINE = 8 * MAIL_OF_THREAD  # The size of a cache line in bytes.


@jit
def run_parts(mail, ticket, thread, n_threads, scratch):  # type: ignore[no-untyped-def]
    """Compute the thread's part of a kernel call, then all parts that no thread has started.

    Therefore no thread has to wait for a thread whose processor runs another program. A part's
    result does not depend on which thread computes it.
    """
    for i in range(n_threads):
        part = (thread + i) % n_threads
        line = mail + _LINE * part
        if replace(line + 8 * BEGUN, ticket - 1, ticket):
            address = load(mail + 8 * JOB)
            job = carray(pointer(address), 1, HEADER)[0]
            call(job.code, address, part, n_threads, scratch + part * SCRATCH)
            swap(line + 8 * DONE, ticket)
            if load(mail + 8 * CALLER_SLEEPS) == 1 + part:
                wake(line + 8 * DONE)


@jit
def serve(mail, thread, n_threads, scratch):  # type: ignore[no-untyped-def]
    """Compute parts of each kernel call until the ticket is `QUIT`."""
    ticket, place = np.int64(0), mail + 8 * TICKET
    while True:
        spins = 0
        while load(place) == ticket:
            spins += 1
            if spins < SPINS:
                spin()
            else:
                add(mail + 8 * N_ASLEEP, 1)
                sleep(place, ticket)
                add(mail + 8 * N_ASLEEP, -1)
        ticket = load(place)
        if ticket == QUIT:
            return
        run_parts(mail, ticket, thread, n_threads, scratch)


@jit
def publish(mail, ticket):  # type: ignore[no-untyped-def]
    """Send a ticket to the other threads, and wake sleeping threads."""
    swap(mail + 8 * TICKET, ticket)
    if load(mail + 8 * N_ASLEEP) > 0:
        wake(mail + 8 * TICKET)


@jit
def wait_for(mail, ticket, n_threads):  # type: ignore[no-untyped-def]
    """Wait until all parts of a kernel call are done."""
    for part in range(n_threads):
        place, spins = mail + 8 * DONE + _LINE * part, 0
        while True:
            found = load(place)
            if found == ticket:
                break
            spins += 1
            if spins < SPINS:
                spin()
            else:
                swap(mail + 8 * CALLER_SLEEPS, 1 + part)
                sleep(place, found)
                swap(mail + 8 * CALLER_SLEEPS, 0)


@jit
def choose_threads(letters, n_threads, table, spent):  # type: ignore[no-untyped-def]
    """Decide, after a step of ``spent`` nanoseconds, whether the caller computes alone from now on.

    Other threads slow down training if another program uses their processor, or if steps are short
    and the processors are far apart. From time to time, a few steps are run with one thread instead
    of all, or the reverse. Results do not depend on the number of threads, so the decision may
    depend on measured times.
    """
    if table != letters[LAST_TABLE]:  # Do not compare times of different tables.
        letters[LAST_TABLE] = table
        return
    n_steps, as_before = letters[N_STEPS] + 1, letters[AS_BEFORE]
    total = letters[NANOSECONDS] + (spent if n_steps > UNMEASURED else 0)
    stretch = max(letters[STRETCH], FIRST_STRETCH * n_threads)
    letters[N_STEPS], letters[NANOSECONDS] = n_steps, total
    if n_steps < (TRIED_STEPS if as_before else stretch) and (
        as_before == 0 or total < TRIED_STEPS * as_before
    ):
        return
    mean = total // max(1, n_steps - UNMEASURED)
    letters[N_STEPS] = letters[NANOSECONDS] = letters[AS_BEFORE] = 0
    if as_before and mean < as_before:
        letters[STRETCH] = 0
    elif as_before:
        letters[IS_ALONE] = 1 - letters[IS_ALONE]
        letters[STRETCH] = min(2 * stretch, LONGEST_STRETCH)
    elif mean < LONGEST_TRIED:
        letters[IS_ALONE], letters[AS_BEFORE] = 1 - letters[IS_ALONE], max(1, mean)
    else:
        letters[IS_ALONE] = 0
