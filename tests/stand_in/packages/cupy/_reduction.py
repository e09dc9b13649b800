"""Reductions whose expressions are C++."""

from __future__ import annotations

import functools
import operator
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

# As CuPy: a few partial results for each output, combined at the end, so that an expression which
# cannot combine them fails here too.
CODE = """{typedefs}
{preamble}
#define REDUCE(a, b) ({reduce_expr})
#define POST_MAP(a) ({post_map_expr})
typedef {reduce_type} _type_reduce;
extern "C" __global__ void {name}({declared}) {{
  for (ptrdiff_t _i = 0; _i < _out_ind.size(); _i++) {{
    _type_reduce _partial[4];
    for (int _k = 0; _k < 4; _k++) {{
      _type_reduce _s = _type_reduce({identity});
      IndexT _J = _k;
      for (ptrdiff_t _j = _i + _k * _out_ind.size(); _j < _in_ind.size();
           _j += 4 * _out_ind.size(), _J += 4) {{
        _in_ind.set(_j);
        {inputs}
        _type_reduce _a = static_cast<_type_reduce>({map_expr});
        _s = REDUCE(_s, _a);
      }}
      _partial[_k] = _s;
    }}
    for (int _k = 1; _k < 4; _k++) {{
      _type_reduce _a = _partial[0], _b = _partial[_k];
      _partial[0] = REDUCE(_a, _b);
    }}
    _type_reduce _s = _partial[0];
    _out_ind.set(_i);
    {outputs}
    POST_MAP(_s);
  }}
}}"""


class ReductionKernel(Kernel):
    """A map, a reduction and a map of its result, along some axes of broadcast arrays."""

    def __init__(
        self,
        in_params: str,
        out_params: str,
        map_expr: str,
        reduce_expr: str,
        post_map_expr: str,
        identity: Any,
        name: str = "reduce_kernel",
        reduce_type: str | None = None,
        reduce_dims: bool = True,
        preamble: str = "",
        options: tuple[str, ...] = (),
    ) -> None:
        super().__init__(name, in_params, out_params)
        self.map_expr = map_expr
        self.reduce_expr = reduce_expr
        self.post_map_expr = post_map_expr
        self.identity = "" if identity is None else str(identity)
        self.__name__ = name
        self.reduce_type = self.out_params[0].ctype if reduce_type is None else reduce_type
        self.reduce_dims = reduce_dims
        self.preamble = preamble
        self.options = options

    def __call__(
        self,
        *args: Any,
        out: Any = None,
        axis: Any = None,
        keepdims: bool = False,
        stream: Any = None,
        **kwargs: Any,
    ) -> Any:
        if kwargs:
            raise TypeError(f"Wrong arguments {kwargs}")
        if len(args) not in (self.nin, self.nargs):
            raise TypeError(f"Wrong number of arguments for {self.name}")
        given_out = list(args[self.nin :])
        if out is not None:
            if self.nout != 1:
                raise NotImplementedError("")
            if given_out:
                raise ValueError("cannot specify 'out' as both a positional and keyword argument")
            given_out = [out]
        given, given_out = preprocess(args[: self.nin]), preprocess(given_out)
        views, shape = broadcast(given, self.in_params, False)
        in_types, out_types, types = decide_types(
            self.in_params,
            self.out_params,
            [arg.dtype if is_array(arg) else None for arg in given],
            [arg.dtype if is_array(arg) else None for arg in given_out],
        )
        reduced, kept = _axes(axis, len(shape))
        out_shape = tuple(
            1 if i in reduced else n for i, n in enumerate(shape) if keepdims or i in kept
        )
        out_arrays = outputs(given_out, self.out_params, out_types, out_shape, False)
        if out_arrays[0].size == 0:
            return out_arrays[0]
        if self.identity == "" and 0 in shape:
            raise ValueError(
                f"zero-size array to reduction operation {self.name} which has no identity"
            )
        if (*reduced, *kept) != tuple(range(len(shape))):
            if any(param.raw for param in self.in_params):
                raise NotImplementedError("Illegal conditions")
            views = [
                v.transpose(*reduced, *kept) if isinstance(v, np.ndarray) else v for v in views
            ]
        shape = tuple(shape[i] for i in (*reduced, *kept))
        out_views = [array._a for array in out_arrays]
        if self.reduce_dims:
            shape = flatten(views, self.in_params, shape)
            out_shape = flatten(out_views, self.out_params, out_shape)
        call = Call()
        for param, view, dtype in zip(
            (*self.in_params, *self.out_params),
            (*views, *out_views),
            (*in_types, *out_types),
            strict=True,
        ):
            call.add(param, view, dtype)
        call.add_indexer("_in_ind", shape)
        call.add_indexer("_out_ind", out_shape)
        code = self._code(call, types, views, out_views)
        module = _compile.compile_module(code, (self.name,), self.options)
        run = functools.partial(module.call, self.name, (1, 1, 1), (1, 1, 1), call)
        enqueue(self.name, run, filter(is_array, given), out_arrays, stream)
        return out_arrays[0]

    def _code(
        self, call: Call, types: dict[str, np.dtype], views: list[Any], out_views: list[Any]
    ) -> str:
        return CODE.format(
            typedefs=typedefs(types | {"IndexT": np.dtype(np.int32)}),
            preamble=self.preamble,
            reduce_expr=self.reduce_expr,
            post_map_expr=self.post_map_expr,
            reduce_type=self.reduce_type,
            name=self.name,
            declared=", ".join(call.declared),
            identity=self.identity,
            inputs=elements(self.in_params, views, "_in_ind"),
            map_expr=self.map_expr,
            outputs=elements(self.out_params, out_views, "_out_ind"),
        )


def _axes(axis: Any, ndim: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the axes that are reduced, and the others."""
    if axis is None:
        return tuple(range(ndim)), ()
    axes = tuple(axis) if isinstance(axis, tuple | list) else (axis,)
    for i in axes:
        if not -ndim <= operator.index(i) < ndim:
            raise np.exceptions.AxisError(i, ndim)
    reduced = tuple(sorted(i % ndim for i in axes))
    if len(set(reduced)) != len(reduced):
        raise ValueError("duplicate value in 'axis'")
    return reduced, tuple(i for i in range(ndim) if i not in reduced)
