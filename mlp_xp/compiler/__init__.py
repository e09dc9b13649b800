"""A compiler of Array API formulas: trace them into graphs, and derive their gradients.

A formula is a function of arrays that uses only the Array API. The arrays of `array`, with the
functions of `namespace`, record it as a `graph` of `primitives`. `gradient` differentiates the
graph, `formula` computes both with any library, `print_cpu` prints loops for the CPU (from
`cpu_expressions`) and `llvm` optimizes them. `explain` shows the result of each of these stages.
"""

from mlp_xp.compiler.explanation import Explanation, explain
from mlp_xp.compiler.formula import (
    Graph,
    check_formula,
    derive,
    forget,
    graph_of,
    remember,
    with_pullback,
)
from mlp_xp.compiler.graph import FormulaError, Layout, Node, in_order
