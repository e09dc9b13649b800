"""Loops over arrays, whose body is C++."""

import functools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from cupy import _compile
from cupy._arguments import (
    Call,
    Kernel,
    broadcast,
    decide_types,
    elements,
    enqueue,
    flatten,
    is_array,
    outputs,
    preprocess,
    typedefs,
)


class ElementwiseKernel(Kernel):
    """A loop over broadcast arrays, whose body is C++."""

    def __init__(
        self,
        in_params: str,
        out_params: str,
        operation: str,
        name: str = "kernel",
        reduce_dims: bool = True,
        preamble: str = "",
        no_return: bool = False,
        return_tuple: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(name, in_params, out_params)
        if unknown := set(kwargs) - {"loop_prep", "after_loop", "options"}:
            raise TypeError(f"Wrong arguments {unknown}")
        self.params = self.in_params + self.out_params
        self.operation = operation
        self.__name__ = name
        self.reduce_dims = reduce_dims
        self.preamble = preamble
        self.no_return = no_return
        self.return_tuple = return_tuple
        self.kwargs = kwargs
        if any(param.name == "i" for param in self.params):
            raise ValueError("Can not use 'i' as a parameter name")

    def __call__(
        self, *args: Any, size: int = -1, stream: Any = None, block_size: int = 128, **kwargs: Any
    ) -> Any:
        if kwargs:
            raise TypeError(f"Wrong arguments {kwargs}")
        if block_size <= 0:
            raise ValueError("block_size must be greater than zero")
        if len(args) not in (self.nin, self.nargs):
            raise TypeError(
                f"Wrong number of arguments for {self.name!r}. It must be either {self.nin} or "
                f"{self.nargs} (with outputs), but given {len(args)}."
            )
        given = preprocess(args)
        views, shape = broadcast(given, self.params, size != -1)
        in_types, out_types, types = decide_types(
            self.in_params,
            self.out_params,
            [arg.dtype if is_array(arg) else None for arg in given[: self.nin]],
            [arg.dtype for arg in given[self.nin :]],
        )
        shape = (size,) if size != -1 else shape
        out = outputs(given[self.nin :], self.out_params, out_types, shape, size != -1)
        views = views[: self.nin] + [array._a for array in out]
        if 0 not in shape:
            reads = [arg for arg in given[: self.nin] if is_array(arg)]
            self._launch(views, in_types + out_types, types, shape, reads, out, stream, block_size)
        if self.no_return:
            return None
        return out[0] if self.nout == 1 and not self.return_tuple else tuple(out)

    def _launch(
        self,
        views: list[Any],
        dtypes: Sequence[np.dtype],
        types: dict[str, np.dtype],
        shape: tuple[int, ...],
        reads: Sequence[Any],
        writes: Sequence[Any],
        stream: Any,
        block_size: int,
    ) -> None:
        if self.reduce_dims:
            shape = flatten(views, self.params, shape)
        call = Call()
        for param, view, dtype in zip(self.params, views, dtypes, strict=True):
            call.add(param, view, dtype)
        call.add_indexer("_ind", shape)
        code = f"""{typedefs(types)}{self.preamble}
extern "C" __global__ void {self.name}({", ".join(call.declared)}) {{
  {self.kwargs.get("loop_prep", "")};
  CUPY_FOR(i, _ind.size()) {{
    _ind.set(i);
    {elements(self.params, views, "_ind")}
    {self.operation};
  }}
  {self.kwargs.get("after_loop", "")};
}}"""
        kernel = _compile.compile_kernel(code, self.name, self.kwargs.get("options", ()))
        size = math.prod(shape)
        grid, block = (-(-size // block_size), 1, 1), (min(block_size, size), 1, 1)
        run = functools.partial(kernel, grid, block, call)
        enqueue(self.name, run, reads, writes, stream)
