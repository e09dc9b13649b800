"""Ranks connected by TCP: the threads of this process, which need no launcher."""

import socket
import threading
import time

import helpers
import numpy as np
import pytest
from test_communicator import promises
from trainers import assert_same_fit

from mlp_xp import MLPClassifier
from mlp_xp.distributed import Distributed, LostRankError, _processors, connect_ranks


@pytest.fixture
def on_tcp(monkeypatch):
    """Return the function that calls another on n ranks, and returns results or errors."""
    monkeypatch.setattr(_processors, "limit_threads", lambda n_threads: None)

    def on_tcp(n, function, timeout=helpers.PATIENCE):
        found, addresses = [None] * n, [""] * n
        gate = threading.Barrier(n, timeout=helpers.PATIENCE)

        def run(rank):
            def gather(address):
                addresses[rank] = address
                gate.wait()
                return list(addresses)

            try:
                with connect_ranks(rank, gather, host="127.0.0.1", timeout=timeout) as ranks:
                    found[rank] = function(ranks)
            except BaseException as error:
                found[rank] = error

        threads = [threading.Thread(target=run, args=[rank]) for rank in range(n)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(helpers.PATIENCE)
        return found

    return on_tcp


@pytest.mark.parametrize("n", [1, 2, 3])
def test_tcp_implements_the_communicator_interface(on_tcp, n):
    assert on_tcp(n, promises) == [None] * n


def test_large_objects_and_arrays_do_not_block(on_tcp):
    def send(ranks):
        # Larger than a connection's buffers.
        whole = np.full(3_000_001, ranks.rank + 1.0)
        ranks.sum([whole])
        lengths = [len(text) for text in ranks.gather("x" * (5_000_000 * (ranks.rank + 1)))]
        return whole[0] == whole[-1] == 6, lengths

    assert on_tcp(3, send) == [(True, [5_000_000, 10_000_000, 15_000_000])] * 3


def test_tcp_ranks_train_the_same_model_as_one_process(on_tcp):
    X, y = helpers.problem(n=157)
    settings = {"max_iter": 3, "learning_rate": "cosine", "random_state": 0}

    def fit(ranks):
        own = slice(157 * ranks.rank // 3, 157 * (ranks.rank + 1) // 3)
        model = MLPClassifier((8,), **settings, distributed=Distributed("tcp", data="sharded"))
        return model.fit(X[own], y[own])

    whole = MLPClassifier((8,), **settings).fit(X, y)
    for model in on_tcp(3, fit):
        assert_same_fit(model, whole)


def test_an_error_on_one_rank_reaches_the_others_without_ending_processes(on_tcp):
    def fail(ranks):
        if ranks.rank == 1:
            raise MemoryError("this one")
        ranks.barrier()

    first, failed, last = on_tcp(3, fail)
    assert isinstance(failed, MemoryError)
    for error in (first, last):
        assert isinstance(error, LostRankError)
        assert "of 3 ended or is unreachable" in str(error)


def test_a_missing_rank_is_named():
    def gather(address):
        return [address, address]  # Nobody connects to the second.

    began = time.monotonic()
    message = "rank 1 did not connect in time: is its worker busy"
    late = connect_ranks(0, gather, host="127.0.0.1", timeout=0.2)
    with pytest.raises(TimeoutError, match=message), late:
        pass
    assert time.monotonic() - began < helpers.PATIENCE


def test_connections_from_strangers_are_not_taken_for_ranks():
    def gather(address):
        _, host, port = address.split(" ")
        with socket.create_connection((host, int(port))) as stranger:
            stranger.sendall(b"GET / HTTP/1.1\r\n\r\n" + b" " * 40)
        return [address, address]

    alone = connect_ranks(0, gather, host="127.0.0.1", timeout=0.5)
    with pytest.raises(TimeoutError, match="rank 1 did not connect in time"), alone:
        pass


def test_tcp_without_connected_ranks_says_what_to_type():
    X, y = helpers.problem()
    message = r"distributed='tcp' needs the addresses of all processes: fit inside `with mlp_xp"
    with pytest.raises(RuntimeError, match=message):
        helpers.small(distributed="tcp").fit(X, y)
