"""Formulas: functions of arrays, traced into graphs, and derived pullbacks of them."""

from __future__ import annotations

import traceback
import weakref
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from array_api_compat import device
from numpy.lib import mixins

from mlp_xp._utils.array_types import Array, Namespace, Tree
from mlp_xp._utils.tree import leaves, map_leaves, rebuild
from mlp_xp.compiler import namespace
from mlp_xp.compiler.array import TracedArray, as_node, dtype_name, is_float
from mlp_xp.compiler.gradient import gradient
from mlp_xp.compiler.graph import FormulaError, Node, in_order
from mlp_xp.compiler.primitives import PRIMITIVES

# The most graphs and loops, for each combination of shapes and dtypes, that a function keeps.
_MOST_GRAPHS = 32
# Errors name the last line outside of these folders; NumPy's mixin calls operators.
_INTERNAL = (str(Path(__file__).parent), str(Path(mixins.__file__).parent))


class Graph:
    """A traced formula: its results and their gradient, as nodes.

    Attributes
    ----------
    inputs : list of Node
        The leaves of the arguments.
    result : Node
        The value.
    cotangent : Node
        The gradient with respect to the value, an input of the gradients.
    gradients : list of Node or None
        The gradient of each of the first inputs; None if the input does not affect the value.
    """

    def __init__(self, result: Node, inputs: Sequence[Node], n_differentiated: int) -> None:
        self.inputs, self.result = inputs, result
        self.cotangent = Node("input", (), ("dy",), result.shape, result.dtype)
        wanted = inputs[:n_differentiated]
        self.gradients = gradient([result], [self.cotangent], wanted)
        self._forward = in_order([result])
        backward = self._order(n_differentiated)
        used = {x for node in backward for x in node.operands} | set(self.gradients)
        # The values of the forward pass that the pullback needs.
        self._saved = [node for node in (*self._forward, *wanted) if node in used]
        self._orders = {n_differentiated: backward}

    def _order(self, n_needed: int) -> list[Node]:
        """Return the nodes of the first gradients that are not part of the forward pass."""
        forward = set(self._forward)
        found = in_order([g for g in self.gradients[:n_needed] if g is not None])
        return [node for node in found if node not in forward]

    def run(
        self, arrays: Sequence[Array], xp: Namespace
    ) -> tuple[Array, Callable[[Array, int], list[Array]]]:
        """Compute the value, and return it with a function from ``dy`` to the first n gradients."""
        values = dict(zip(self.inputs, arrays, strict=True))
        evaluate(self._forward, values, xp=xp)
        value = values[self.result]
        saved = {node: values[node] for node in self._saved}

        def pullback(dy: Array, n_needed: int) -> list[Array]:
            if n_needed not in self._orders:
                self._orders[n_needed] = self._order(n_needed)
            found = {self.cotangent: dy, **saved}
            evaluate(self._orders[n_needed], found, xp=xp)
            given: list[Array] = []
            owners: set[Node] = set()
            for x, node in zip(arrays[:n_needed], self.gradients, strict=False):
                if node is None:
                    given.append(xp.zeros_like(x))
                    continue
                owner = _owner(node)
                # Gradients are overwritten, so no two share memory.
                is_shared = owner in owners or owner.operation == "broadcast_to"
                given.append(xp.asarray(found[node], copy=True) if is_shared else found[node])
                owners.add(owner)
            return given

        return value, pullback


def _owner(node: Node) -> Node:
    """Return the node whose memory a node's array may share."""
    while node.operation in ("reshape", "index", "permute_dims", "flip"):
        node = node.operands[0]
    return node


def evaluate(order: Sequence[Node], values: dict[Node, Any], *, xp: Namespace) -> None:
    """Compute nodes in order, with any library, and add the results to ``values``."""
    like = next(iter(values.values()))
    for node in order:
        if node in values:
            continue
        if node.operation == "number":
            values[node] = node.settings[0]
        elif node.operation == "constant":
            values[node] = xp.asarray(node.value, device=device(like))
        else:
            given = [*(values[x] for x in node.operands), *node.settings]
            compute = PRIMITIVES[node.operation].compute
            values[node] = compute(xp, *given) if compute else getattr(xp, node.operation)(*given)


# Traced graphs of functions and objects, and results derived from the graphs.
_known: weakref.WeakKeyDictionary[Any, dict[Any, Any]] = weakref.WeakKeyDictionary()


def _known_of(owner: Any) -> dict[Any, Any]:
    try:
        return _known.setdefault(owner, {})
    except TypeError:  # Unhashable or without weak references: trace it each time.
        return {}


def remember(owner: Any, key: Any, make: Callable[[], Any]) -> Any:
    """Return ``make()``, which is kept as long as ``owner``, and called once for each key."""
    known = _known_of(owner)
    try:
        return known[key]
    except KeyError:
        value = make()
    while len(known) >= _MOST_GRAPHS:
        known.pop(next(iter(known)), None)  # Another thread may do the same.
    known[key] = value
    return value


def forget(owner: Any) -> None:
    """Trace the formula of a function or an object again when it is used next.

    A fit does this first, since what a formula reads from elsewhere may have changed.
    """
    _known_of(owner).clear()


def trace_formula(
    function: Callable[..., Any],
    *arguments: Tree,
    names: Sequence[str],
    make_namespace: Callable[[str], Namespace] = namespace.Namespace,
) -> tuple[Any, list[Node]]:
    """Call a function with traced arrays; return its result and the inputs' nodes.

    ``arguments`` are trees of objects with a shape and a dtype, or None. The function must not
    write to arguments, unless their names are empty. ``make_namespace`` returns the namespace for a
    dtype of new arrays.
    """
    inputs: list[Node] = []

    def convert(array: Any, name: str) -> TracedArray | None:
        if array is None:
            return None
        shape, dtype = tuple(array.shape), dtype_name(array.dtype)
        inputs.append(Node("input", (), (len(inputs),), shape, dtype))
        return TracedArray(inputs[-1], origin=name)

    traced = [
        map_leaves(partial(convert, name=name), tree)
        for name, tree in zip(names, arguments, strict=True)
    ]
    default = next((x.dtype for x in inputs if is_float(x.dtype)), "float32")
    return function(*traced, xp=make_namespace(default)), inputs


def trace_both(
    function: Callable[..., Any], *arguments: Tree, names: Sequence[str]
) -> tuple[list[Node], Node, Node, Node | None]:
    """Return a formula's inputs, the gradient dy, the value, and what its pullback returns for dy.

    The last is None if the formula returns no pullback.
    """
    value, inputs = trace_formula(function, *arguments, names=names)
    y, pullback = value if isinstance(value, tuple) else (value, None)
    dy = Node("input", (), ("dy",), y.shape, y.dtype)
    return inputs, dy, y.node, None if pullback is None else as_node(pullback(TracedArray(dy)))


def graph_of(
    function: Callable[..., Any],
    *arguments: Tree,
    names: Sequence[str],
    n_differentiated: int,
    what: str,
    owner: Any = None,
    key: Any = None,
) -> Graph | None:
    """Return the graph of a formula, or None if it returns ``(value, pullback)`` itself.

    ``names`` are the names of the arguments and ``what`` is the name of the formula, in errors. The
    graph is kept as long as ``owner``, by default the function; ``key`` is what else defines it.
    """

    def make() -> Graph | None:
        try:
            value, inputs = trace_formula(function, *arguments, names=names)
            n_leaves = len(leaves(arguments[:n_differentiated]))
            return None if isinstance(value, tuple) else Graph(_check(value), inputs, n_leaves)
        except FormulaError as error:
            raise FormulaError(f"{what} {_place(error)}: {error}") from None
        except Exception as error:
            raise FormulaError(
                f"{what} {_place(error)}: {type(error).__name__}: {error}; use only operators and "
                "the functions of its argument xp."
            ) from error

    owner = function if owner is None else owner
    graph: Graph | None = remember(owner, (key, _layouts(arguments)), make)
    return graph


def _check(value: Any) -> Node:
    if not isinstance(value, TracedArray):
        raise FormulaError(
            f"it must return one array, or (value, pullback), got {type(value).__name__}."
        )
    if not is_float(value.dtype):
        raise FormulaError(f"it must return floating-point numbers, got {value.dtype}.")
    return value.node


def derive(
    function: Callable[..., Any],
    *arguments: Tree,
    xp: Namespace,
    names: Sequence[str] = (),
    what: str = "the formula",
    n_differentiated: int | None = None,
    owner: Any = None,
    key: Any = None,
) -> tuple[Array, Callable[..., tuple[Tree, ...]]]:
    """Compute a function that returns an array, and derive its pullback.

    Parameters
    ----------
    function : callable
        ``function(*arguments, xp=xp)``; it uses only the Array API.
    *arguments : tree of array
    xp : namespace
        The namespace of the arrays.
    names : sequence of str
        The arguments' names, for errors.
    what : str
        The function's name, for errors.
    n_differentiated : int, optional
        How many of the arguments to differentiate by; all by default. They must be floating-point.
    owner, key
        See `graph_of`.

    Returns
    -------
    value : array
    pullback : callable
        ``pullback(dy)`` returns the gradients of the differentiated arguments, as a tuple of trees;
        ``pullback(dy, n)`` only the first n.

    Raises
    ------
    FormulaError
        If the function cannot be traced or differentiated; the message has the line.

    Examples
    --------
    >>> import array_api_compat.numpy as xp
    >>> from mlp_xp.compiler import derive
    >>> def cubed(x, *, xp):
    ...     return x**3
    >>> y, pullback = derive(cubed, xp.asarray([1.0, 2.0]), xp=xp)
    >>> y, pullback(xp.ones(2))
    (array([1., 8.]), (array([ 3., 12.]),))
    """
    n = len(arguments) if n_differentiated is None else n_differentiated
    names = names or [f"argument {i}" for i in range(1, len(arguments) + 1)]
    graph = graph_of(
        function,
        *arguments,
        names=names,
        n_differentiated=n,
        what=what,
        owner=owner,
        key=key,
    )
    if graph is None:
        raise FormulaError(f"{what} must return one array, got a tuple.")
    value, pull = graph.run(leaves(arguments), xp)

    def pullback(dy: Array, n_needed: int = n) -> tuple[Tree, ...]:
        needed = arguments[:n_needed]
        found: tuple[Tree, ...] = rebuild(needed, pull(dy, len(leaves(needed))))
        return found

    return value, pullback


def with_pullback(
    function: Callable[..., Any],
    *arguments: Array,
    xp: Namespace,
    names: Sequence[str],
    what: str,
) -> Any:
    """Call a function that returns ``(value, pullback)``, or derive the pullback if it does not.

    The pullback returns the gradient of the first argument.
    """
    try:
        graph = graph_of(function, *arguments, names=names, n_differentiated=1, what=what)
    except Exception as error:
        # A formula with a pullback need not be traceable.
        try:
            found = function(*arguments, xp=xp)
        except Exception:
            raise error from None
        if not isinstance(found, tuple):
            raise
        remember(function, (None, _layouts(arguments)), lambda: None)
        return found
    if graph is None:
        return function(*arguments, xp=xp)
    value, pull = graph.run(arguments, xp)
    return value, lambda dy: pull(dy, 1)[0]


def check_formula(
    function: Callable[..., Any], *arguments: Array, names: Sequence[str], what: str
) -> bool:
    """Return whether `with_pullback` derives the pullback; raise FormulaError if that is useless.

    The pullback would be zero if the formula's value does not depend on its first argument. If the
    formula draws random numbers, a derived pullback would be wrong, and a loop of the formula and
    its own pullback would repeat the first ones.
    """
    try:
        graph = graph_of(function, *arguments, names=names, n_differentiated=1, what=what)
    except FormulaError:
        return False  # `with_pullback` decides whether this is an error.
    if graph is not None and graph.gradients[0] is None:
        raise FormulaError(
            f"{what} does not depend on its {names[0]}, so there is nothing to learn; compute the "
            f"result from {names[0]}."
        )
    try:
        first, second = (trace_both(function, *arguments, names=names)[2:] for _ in range(2))
    except Exception:  # A pullback need not be traceable.
        return False
    if first != second:
        raise FormulaError(
            f"{what} has other constants in each call, so it draws random numbers or changes its "
            "own settings; compute the same formula each time."
        )
    return graph is not None


def _layouts(arguments: Sequence[Tree]) -> tuple[Any, ...]:
    return tuple((tuple(x.shape), dtype_name(x.dtype)) for x in leaves(arguments))


def _place(error: Exception) -> str:
    """Return the line of the formula where an error was raised, as text."""
    frames = traceback.extract_tb(error.__traceback__)
    outside = [frame for frame in frames if not frame.filename.startswith(_INTERNAL)]
    if not outside:
        return "cannot be differentiated"
    frame = outside[-1]
    place = f"fails in line {frame.lineno} of {Path(frame.filename).name}"
    return f"{place} (`{frame.line.strip()}`)" if frame.line else place
