"""TCP connections between processes started by another system, such as Dask or Spark.

All pairs of ranks are connected, as in torch's gloo, but sums are computed in the calling thread.
For a 4 kB array, gloo takes 30 times as long, since its threads must wake each other.
"""

from __future__ import annotations

import contextlib
import pickle
import secrets
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Any, TypeVar

import numpy as np

from mlp_xp.distributed.communicator import Communicator, LostRankError, sum_packed

T = TypeVar("T")

# All ranks send each other a chunk of this many bytes before they receive one. A chunk fits into a
# connection's buffers, so ranks cannot deadlock in `sendall`.
_CHUNK = 1 << 17
# Each rank sends smaller arrays, in bytes, to all other ranks; for larger arrays, it sums a part.
_SHORT = 1 << 15
_LENGTH = 8  # The size in bytes of the field for an object's length.
_TOKEN = 32  # The number of characters in the token sent at the start of a connection.
# A machine is lost after a minute of silence; after half a minute, it is probed three times.
_KEEP_ALIVE = {"TCP_KEEPIDLE": 30, "TCP_KEEPINTVL": 10, "TCP_KEEPCNT": 3}


class Listener:
    """A listening socket, to which other ranks connect; ``address`` is the text to pass to them.

    ``host`` is the name or address at which other machines reach this one.
    """

    def __init__(self, host: str) -> None:
        self._socket = socket.create_server((host, 0), family=_family(host), backlog=1024)
        self._token = secrets.token_hex(_TOKEN // 2)
        self.address = f"{self._token} {host} {self._socket.getsockname()[1]}"

    def close(self) -> None:
        """Stop listening."""
        self._socket.close()

    def connect(self, rank: int, addresses: Sequence[str], timeout: float) -> TcpCommunicator:
        """Return the communicator for all ranks, given their addresses in rank order.

        Raise TimeoutError if a rank does not connect in time.
        """
        end = time.monotonic() + timeout
        peers: dict[int, socket.socket] = {}
        try:
            for other, address in enumerate(addresses[:rank]):
                peers[other] = _call(rank, other, address, end)
            while len(peers) < len(addresses) - 1:
                self._accept(peers, set(range(rank + 1, len(addresses))), end)
        except BaseException:
            for peer in peers.values():
                peer.close()
            raise
        finally:
            self.close()
        return TcpCommunicator(rank, peers)

    def _accept(self, peers: dict[int, socket.socket], expected: set[int], end: float) -> None:
        """Accept a connection, and keep it if it comes from a rank with the token."""
        missing = sorted(expected - peers.keys())
        self._socket.settimeout(_left(end, missing))
        try:
            peer, _ = self._socket.accept()
            peer.settimeout(_left(end, missing))
        except TimeoutError:
            raise _not_there(missing) from None
        with contextlib.suppress(OSError, ValueError):
            said = _read(peer, _TOKEN + _LENGTH)
            other = int.from_bytes(said[_TOKEN:], "little")
            if secrets.compare_digest(said[:_TOKEN], self._token.encode()) and other in missing:
                peers[other] = _prepare(peer)
                return
        peer.close()  # Not a rank.


class TcpCommunicator(Communicator):
    """Ranks connected by sockets; ``peers`` contains the socket of each other rank."""

    def __init__(self, rank: int, peers: dict[int, socket.socket]) -> None:
        self.rank, self.size = rank, len(peers) + 1
        self.is_closed = False
        self._peers = peers

    def sum(self, arrays: Sequence[np.ndarray]) -> None:
        sum_packed(arrays, self.start_sum, self._sum)

    def start_sum(self, array: np.ndarray) -> Callable[[], None]:
        self._sum(array)
        return lambda: None

    def _sum(self, array: np.ndarray) -> None:
        flat = array.reshape(-1)
        if array.nbytes < _SHORT:
            parts = self._receive(dict.fromkeys(self._peers, flat), flat)
            flat[...] = _in_order(parts)
        else:
            bounds = [flat.size * rank // self.size for rank in range(self.size + 1)]
            slices = [flat[start:stop] for start, stop in pairwise(bounds)]
            mine = slices[self.rank]
            mine[...] = _in_order(self._receive({p: slices[p] for p in self._peers}, mine))
            self._swap(
                {p: _bytes(mine) for p in self._peers}, {p: _bytes(slices[p]) for p in self._peers}
            )

    def _receive(self, sent: dict[int, np.ndarray], own: np.ndarray) -> list[np.ndarray]:
        """Send an array to each other rank; return all ranks' arrays, sized like ``own``."""
        parts = [own if rank == self.rank else np.empty_like(own) for rank in range(self.size)]
        received = {peer: _bytes(parts[peer]) for peer in self._peers}
        self._swap({peer: _bytes(array) for peer, array in sent.items()}, received)
        return parts

    def broadcast(self, value: T, root: int = 0) -> T:
        if self.rank == root:
            pickled = pickle.dumps(value)
            message = len(pickled).to_bytes(_LENGTH, "little") + pickled
            self._swap(dict.fromkeys(self._peers, memoryview(message)), {})
            return value
        length = self._objects({root: _LENGTH}, {})[root]
        content = self._objects({root: int.from_bytes(length, "little")}, {})[root]
        found: T = pickle.loads(content)  # noqa: S301  (Of a rank that has this fit's token.)
        return found

    def gather(self, value: T) -> list[T]:
        if not self._peers:  # Avoid pickling a whole table.
            return [value]
        content = pickle.dumps(value)
        length = len(content).to_bytes(_LENGTH, "little")
        lengths = self._objects(
            dict.fromkeys(self._peers, _LENGTH), dict.fromkeys(self._peers, memoryview(length))
        )
        found = self._objects(
            {peer: int.from_bytes(text, "little") for peer, text in lengths.items()},
            dict.fromkeys(self._peers, memoryview(content)),
        )
        found[self.rank] = bytearray(content)
        return [pickle.loads(found[rank]) for rank in range(self.size)]  # noqa: S301

    def _objects(
        self, lengths: dict[int, int], sent: dict[int, memoryview]
    ) -> dict[int, bytearray]:
        """Send bytes to other ranks, and return the bytes received from them."""
        found = {peer: bytearray(length) for peer, length in lengths.items()}
        self._swap(sent, {peer: memoryview(content) for peer, content in found.items()})
        return found

    def _swap(self, sent: dict[int, memoryview], received: dict[int, memoryview]) -> None:
        """Exchange bytes with other ranks, sending and receiving in turn."""
        longest = max(map(len, (*sent.values(), *received.values())), default=0)
        peer = self.rank
        try:
            for start in range(0, longest, _CHUNK):
                for peer, content in sent.items():
                    if start < len(content):
                        self._peers[peer].sendall(content[start : start + _CHUNK])
                for peer, content in received.items():
                    if start < len(content):
                        _fill(self._peers[peer], content[start : start + _CHUNK])
        except OSError as error:
            self.abort()  # The other ranks end, too.
            raise LostRankError(f"rank {peer} of {self.size} ended or is unreachable") from error

    def abort(self, code: int = 1) -> None:
        """Close all connections, so that each rank raises LostRankError; no process ends."""
        self.is_closed = True
        for peer in self._peers.values():
            with contextlib.suppress(OSError):  # It is already closed.
                peer.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def closing(communicator: TcpCommunicator) -> Iterator[TcpCommunicator]:
    """Close the communicator's connections on exit."""
    try:
        yield communicator
    finally:
        communicator.abort()
        for peer in communicator._peers.values():
            peer.close()


def create() -> TcpCommunicator:
    """Raise RuntimeError, since a communicator requires the addresses of the ranks."""
    raise RuntimeError(
        "distributed='tcp' needs the addresses of all processes: fit inside `with "
        "mlp_xp.distributed.connect_ranks(rank, gather)`, or use distributed='mpi' with mpiexec."
    )


def own_host() -> str:
    """Return this machine's address on its route to other networks."""
    probe = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with probe, contextlib.suppress(OSError):
        probe.connect(("192.0.2.1", 9))  # An address reserved for documentation; nothing is sent.
        return str(probe.getsockname()[0])
    return "127.0.0.1"  # Without a route, all ranks must be on this machine.


def _call(rank: int, other: int, address: str, end: float) -> socket.socket:
    """Connect to another rank's listener."""
    token, host, port = address.split(" ")
    try:
        peer = socket.create_connection((host, int(port)), timeout=_left(end, [other]))
        peer.sendall(token.encode() + rank.to_bytes(_LENGTH, "little"))
    except TimeoutError:
        raise _not_there([other]) from None
    except OSError as error:
        raise LostRankError(f"rank {other} does not answer at {host}:{port}: {error}") from error
    return _prepare(peer)


def _prepare(peer: socket.socket) -> socket.socket:
    """Set a connection's options."""
    peer.settimeout(None)
    peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2 * _CHUNK)
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _KEEP_ALIVE.items():
        if hasattr(socket, name):  # macOS uses other names.
            peer.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
    return peer


def _family(host: str) -> Any:
    return socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)[0][0]


def _left(end: float, missing: Sequence[int]) -> float:
    """Return the seconds left until ``end``."""
    if (left := end - time.monotonic()) <= 0:
        raise _not_there(missing)
    return left


def _not_there(missing: Sequence[int]) -> TimeoutError:
    ranks = ", ".join(map(str, missing))
    return TimeoutError(f"rank {ranks} did not connect in time: is its worker busy or gone?")


def _in_order(parts: Sequence[np.ndarray]) -> np.ndarray:
    """Sum arrays in rank order, with bitwise identical results on each rank."""
    total = parts[0] + parts[1] if len(parts) > 1 else parts[0]
    for part in parts[2:]:
        total += part
    return total


def _bytes(array: np.ndarray) -> memoryview:
    view: Any = array
    return memoryview(view).cast("B")


def _read(peer: socket.socket, length: int) -> bytes:
    content = bytearray(length)
    _fill(peer, memoryview(content))
    return bytes(content)


def _fill(peer: socket.socket, content: memoryview) -> None:
    """Receive bytes until a buffer is full; raise OSError if the connection ends."""
    while len(content):
        n = peer.recv_into(content)
        if not n:
            raise ConnectionResetError("the connection was closed")
        content = content[n:]
