"""A product as its descriptors say it, and the operation that it becomes."""

from __future__ import annotations

import ctypes
import zlib
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from cupy._launch import Node
from cupy._memory import Block

from nvmath import CudaDataType
from nvmath.bindings._descriptors import get
from nvmath.bindings._enums import Epilogue, MatmulDescAttribute, PointerMode
from nvmath.bindings._product import STORED, Call, Matrix, Place, place, run
from nvmath.bindings._rules import check, check_pointers, has_aux, has_bias, matrix, refuse
from nvmath.bindings.cublas import ComputeType, Status

_DESC = MatmulDescAttribute


class Pointers(NamedTuple):
    """Addresses of a product."""

    alpha: int
    a: int
    b: int
    beta: int
    c: int
    d: int


class Problem(NamedTuple):
    """A product as its descriptors say it."""

    desc: dict[Any, Any]
    a: Matrix
    b: Matrix
    c: Matrix
    d: Matrix

    @property
    def identity(self) -> int:
        """Return a number for what an algorithm is made for; sizes may change."""
        desc = [self.desc[key] for key in (_DESC.COMPUTE_TYPE, _DESC.TRANSA, _DESC.TRANSB)]
        matrices = [(one.type, one.order, one.n_batch > 1) for one in self[1:]]
        return zlib.crc32(repr((desc, self.desc[_DESC.EPILOGUE], matrices)).encode())

    def node(self, at: Pointers, scratch: list[Block]) -> Node:
        """Return the operation on memory whose addresses are fixed from now on."""
        desc = self.desc
        check_pointers(desc, self.d.type)
        alpha, alpha_block = self._factor(at.alpha)
        beta, beta_block = self._factor(at.beta)
        is_on_host = desc[_DESC.POINTER_MODE] == PointerMode.HOST
        reads_c = not is_on_host or beta() != 0
        epilogue = Epilogue(desc[_DESC.EPILOGUE])
        call = Call(
            ComputeType(desc[_DESC.COMPUTE_TYPE]),
            desc[_DESC.TRANSA],
            desc[_DESC.TRANSB],
            epilogue,
            (self.a.type, self.b.type, self.d.type),
            self.a.place(at.a),
            self.b.place(at.b),
            self.c.place(at.c) if reads_c else None,
            self.d.place(at.d),
            self._bias(epilogue) if has_bias(epilogue) else None,
            self._aux(epilogue) if has_aux(epilogue) else None,
            alpha,
            beta,
        )
        reads = [call.a.block, call.b.block]
        writes = [call.d.block, *scratch]
        if call.c is not None:
            reads.append(call.c.block)
        reads += [block for block in (alpha_block, beta_block) if block is not None]
        if call.bias is not None:
            (writes if "BGRAD" in epilogue.name else reads).append(call.bias.block)
        if call.aux is not None:
            (writes if "AUX" in epilogue.name else reads).append(call.aux.block)
        return Node(f"cublasLt {epilogue.name}", lambda: run(call), tuple(reads), tuple(writes))

    def _factor(self, address: int) -> tuple[Callable[[], float], Block | None]:
        """Return alpha or beta: from the host it is read now, from the device in the product."""
        dtype = STORED[CudaDataType(self.desc[_DESC.SCALE_TYPE])]
        if self.desc[_DESC.POINTER_MODE] == PointerMode.HOST:
            value = np.frombuffer(ctypes.string_at(address, dtype.itemsize), dtype)[0].item()
            return lambda: value, None
        where = place(address, (1,), (1,), dtype)
        return lambda: where.view[0].item(), where.block

    def _bias(self, epilogue: Epilogue) -> Place:
        size = self.d.cols if epilogue == Epilogue.BGRADB else self.d.rows
        strides = self.desc[_DESC.BIAS_BATCH_STRIDE], 1
        dtype = STORED[self.d.type]
        return place(self.desc[_DESC.BIAS_POINTER], (self.d.n_batch, size), strides, dtype)

    def _aux(self, epilogue: Epilogue) -> Place:
        """Return the mask, as bytes along the rows, or the input of GELU."""
        desc, d = self.desc, self.d
        ld, stride = desc[_DESC.EPILOGUE_AUX_LD], desc[_DESC.EPILOGUE_AUX_BATCH_STRIDE]
        refuse(d.n_batch > 1 and stride < ld * d.cols, Status.INVALID_VALUE)
        address = desc[_DESC.EPILOGUE_AUX_POINTER]
        if "RELU" in epilogue.name:
            shape = d.n_batch, -(-d.rows // 8), d.cols
            return place(address, shape, (stride // 8, 1, ld // 8), np.uint8)
        return place(address, (d.n_batch, d.rows, d.cols), (stride, 1, ld), STORED[d.type])


def find_problem(handle: int, desc: int, *layouts: int) -> Problem:
    get(handle, "handle")
    problem = Problem(get(desc, "product"), *(matrix(get(layout, "matrix")) for layout in layouts))
    check(*problem)
    return problem
