"""Loops over arrays, whose body is C++."""

import functools
import math
from typing import Any

from cupy import _arguments, _compile
from cupy._arguments import Call, Kernel, is_array

SETTINGS = {"reduce_dims": True, "preamble": "", "no_return": False, "return_tuple": False}
SETTINGS |= {"loop_prep": "", "after_loop": "", "options": ()}


class ElementwiseKernel(Kernel):
    def __init__(self, in_params, out_params, operation, name="kernel", **settings: Any) -> None:
        super().__init__(name, in_params, out_params)
        if unknown := set(settings) - set(SETTINGS):
            raise TypeError(f"Wrong arguments {unknown}")
        self.operation = operation
        self.__name__ = name
        self.settings = SETTINGS | settings
        if any(param.name == "i" for param in self.params):
            raise ValueError("Can not use 'i' as a parameter name")

    def __call__(self, *args: Any, size=-1, stream=None, block_size=128, **kwargs: Any) -> Any:
        if kwargs:
            raise TypeError(f"Wrong arguments {kwargs}")
        if block_size <= 0:
            raise ValueError("block_size must be greater than zero")
        if len(args) not in (self.nin, self.nargs):
            raise TypeError(
                f"Wrong number of arguments for {self.name!r}. It must be either {self.nin} or "
                f"{self.nargs} (with outputs), but given {len(args)}."
            )
        given = _arguments.preprocess(args)
        views, shape = _arguments.broadcast(given, self.params, size != -1)
        inputs, out = given[: self.nin], given[self.nin :]
        dtypes, types = _arguments.decide_types(
            self,
            [arg.dtype if is_array(arg) else None for arg in inputs],
            [arg.dtype for arg in out],
        )
        shape = (size,) if size != -1 else shape
        out = _arguments.outputs(out, self.out_params, dtypes[self.nin :], shape, size != -1)
        if 0 not in shape:
            views = views[: self.nin] + [array._a for array in out]
            run = self._rendered(views, dtypes, types, shape, block_size)
            _arguments.enqueue(self.name, run, filter(is_array, inputs), out, stream)
        if self.settings["no_return"]:
            return None
        return out[0] if self.nout == 1 and not self.settings["return_tuple"] else tuple(out)

    def _rendered(self, views: list[Any], dtypes: Any, types: Any, shape: Any, block_size) -> Any:
        if self.settings["reduce_dims"]:
            shape = _arguments.flatten(views, self.params, shape)
        call = Call()
        for param, view, dtype in zip(self.params, views, dtypes, strict=True):
            call.add(param, view, dtype)
        call.add_indexer("_ind", shape)
        code = f"""{_arguments.typedefs(types)}{self.settings["preamble"]}
extern "C" __global__ void {self.name}({", ".join(call.declared)}) {{
  {self.settings["loop_prep"]};
  CUPY_FOR(i, _ind.size()) {{
    _ind.set(i);
    {_arguments.elements(self.params, views, "_ind")}
    {self.operation};
  }}
  {self.settings["after_loop"]};
}}"""
        kernel = _compile.compile_kernel(code, self.name, self.settings["options"])
        size = math.prod(shape)
        grid, block = (-(-size // block_size), 1, 1), (min(block_size, size), 1, 1)
        return functools.partial(kernel, grid, block, call)
