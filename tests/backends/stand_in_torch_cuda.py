"""A stand-in for torch's CUDA streams and graphs, over tensors in the host's memory.

A capture records torch's operations; what they wrote is undone, and what they allocated is garbage
until a replay. What would wait for the device raises in a capture.
"""

import contextlib
from collections import Counter
from types import SimpleNamespace

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

CUDA = SimpleNamespace()
WAITS = ("_local_scalar_dense", "nonzero", "masked_select", "equal", "_to_copy_host")


class Stream:
    def __init__(self, device=None, name="side"):
        self.name = name

    def wait_stream(self, other):
        CUDA.order.append((self.name, "waits for", other.name))


class Graph:
    def capture_begin(self, pool=None, capture_error_mode="global"):
        assert CUDA.current.name == "side", "captured on the default stream"
        assert pool in CUDA.pools, "a separate pool"
        assert capture_error_mode == "relaxed"
        self.mode = Recording()
        self.mode.__enter__()

    def capture_end(self):
        self.mode.__exit__(None, None, None)
        self.mode.undo()
        CUDA.counts["captures"] += 1

    def replay(self):
        assert CUDA.current.name == "side", "launched on the default stream"
        CUDA.counts["replays"] += 1
        self.mode.replay()


class Recording(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.calls, self.saved, self.made = [], {}, {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        name = func.overloadpacket.__name__
        given = tensors((args, kwargs))
        is_mask = name.startswith("index") and any(t.dtype == torch.bool for t in given[1:])
        if name in WAITS or is_mask:
            raise RuntimeError(f"{name}: operation not permitted when stream is capturing")
        if func._schema.is_mutable:
            for tensor in given:
                if storage(tensor) not in self.made and storage(tensor) not in self.saved:
                    raw = tensor.untyped_storage()
                    self.saved[storage(tensor)] = raw, raw.clone()
        result = func(*args, **kwargs)
        known = {storage(t) for t in given}
        new = [t for t in tensors(result) if storage(t) not in known]
        for tensor in new:
            self.made[storage(tensor)] = tensor
        if new or func._schema.is_mutable:  # All else are views.
            self.calls.append((func, args, kwargs, result if new else None))
        return result

    def undo(self):
        for raw, kept in self.saved.values():
            raw.copy_(kept)
        for tensor in self.made.values():
            tensor.untyped_storage().fill_(0xFF)

    def replay(self):
        for func, args, kwargs, result in self.calls:
            again = func(*args, **kwargs)
            if result is not None:
                for mine, value in zip(tensors(result), tensors(again), strict=True):
                    mine.copy_(value)


def tensors(tree):
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, torch.Tensor)]


def storage(tensor):
    return tensor.untyped_storage().data_ptr()


@contextlib.contextmanager
def current(stream):
    former, CUDA.current = CUDA.current, stream
    try:
        yield
    finally:
        CUDA.current = former


def install(monkeypatch):
    CUDA.order, CUDA.pools, CUDA.counts = [], [], Counter()
    CUDA.current = Stream(name="default")
    for name, function in {
        "Stream": Stream,
        "CUDAGraph": Graph,
        "current_stream": lambda device=None: CUDA.current,
        "stream": current,
        "device": lambda device: contextlib.nullcontext(),
        "graph_pool_handle": lambda: CUDA.pools.append(object()) or CUDA.pools[-1],
    }.items():
        monkeypatch.setattr(torch.cuda, name, function)
    return CUDA
