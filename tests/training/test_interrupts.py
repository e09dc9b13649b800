"""Ctrl-C: a flag while a step runs, an exception in a wait."""

import signal
import threading

import pytest

from mlp_xp._utils.signals import interruptible, interrupts

pytestmark = pytest.mark.usefixtures("ctrl_c")


def test_ctrl_c_is_a_flag_and_the_second_one_an_exception():
    with interrupts() as pressed:
        assert not pressed()
        signal.raise_signal(signal.SIGINT)
        assert pressed()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_ctrl_c_raises_at_once_in_a_wait_of_the_main_thread_only():
    started, over = threading.Event(), threading.Event()

    def wait():
        with interruptible():
            started.set()
            over.wait()

    thread = threading.Thread(target=wait)
    thread.start()
    started.wait()
    with interrupts() as pressed:
        signal.raise_signal(signal.SIGINT)
        assert pressed()
    over.set()
    thread.join()
    with interrupts(), interruptible(), pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


def test_other_threads_and_handlers_are_left_alone():
    before = signal.getsignal(signal.SIGINT)
    seen = []

    def work():
        with interrupts() as pressed:
            seen.append((signal.getsignal(signal.SIGINT), pressed()))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [(before, False)]
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # `ctrl_c` takes it back.
    with interrupts():
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
