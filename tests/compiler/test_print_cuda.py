"""The CUDA text of formulas, and how they are divided into launches; this needs no GPU."""

import re

import pytest

from mlp_xp.compiler import Layout
from mlp_xp.compiler.formula import trace_formula
from mlp_xp.compiler.joined import split_joined
from mlp_xp.compiler.kernel import COLUMN, ROW
from mlp_xp.compiler.print_cuda import print_launch
from mlp_xp.compiler.schedule import Launch, schedule
from mlp_xp.nn.layers import Norm, batch_norm, layer_norm
from mlp_xp.nn.losses import SoftmaxCrossEntropy, mean_loss


def steps_of(function, *arguments):
    """Return the launches of a function, and the operations left to a library."""
    value, inputs = trace_formula(function, *arguments, names=["input"] * len(arguments))
    values = value if isinstance(value, list) else [value]
    return schedule([array.node for array in values], inputs)


def loss_and_gradient(logits, targets, weights, *, xp):
    value, pullback = mean_loss(SoftmaxCrossEntropy(0.1), logits, targets, weights, xp=xp)
    return [value, pullback()]


def loss_steps(rows=64, columns=10, dtype="float32"):
    logits, labels = Layout((rows, columns), dtype), Layout((rows,), "int32")
    return steps_of(loss_and_gradient, logits, labels, Layout((rows,), dtype))


def norm_of(function, *more):
    def gradients(scale, shift, x, dy, *, xp):
        _, pullback, *_ = function(Norm(scale, shift), x, *more, xp=xp)
        dx, grads = pullback(dy, need_dx=True)
        return [dx, *grads]

    return gradients


def test_a_loss_and_its_gradient_need_one_kernel_launch():
    (launch,) = loss_steps()
    assert launch.grid.along == ROW
    assert (launch.grid.rows, launch.grid.columns) == (64, 10)


@pytest.mark.parametrize("size", [(64, 10), (64, 64), (1, 10), (10, 1)])
def test_batch_norm_needs_one_launch_along_columns(size):
    x, vector = Layout(size, "float32"), Layout(size[1:], "float32")
    (launch,) = steps_of(norm_of(batch_norm, None), vector, vector, x, x)
    assert launch.grid.along == COLUMN or 1 in size


def test_layer_norm_sums_along_rows_and_then_along_columns():
    x, vector = Layout((64, 64), "float32"), Layout((64,), "float32")
    launches = steps_of(norm_of(layer_norm), vector, vector, x, x)
    assert sorted(launch.grid.along for launch in launches) == [COLUMN, ROW]


def test_matrix_products_are_left_to_a_library():
    def multiplied(a, b, *, xp):
        return xp.exp(a @ b + 1.0) / 2.0

    x = Layout((8, 8), "float32")
    product, launch = steps_of(multiplied, x, x)
    assert product.operation == "matmul"
    assert isinstance(launch, Launch)


def test_row_and_column_vectors_are_distinguished_in_square_matrices():
    """In a square matrix, only the shapes of later operations tell rows from columns."""

    def centered(x, a, b, *, xp):
        of_rows = xp.sum(x, axis=1) * a
        return (x - of_rows[:, None]) * b

    (launch,) = steps_of(centered, Layout((9, 9), "float32"), *[Layout((9,), "float32")] * 2)
    text = print_launch(launch, "centered", ()).text
    assert re.search(r"is_inside \? array_\d\[row\]", text)
    assert re.search(r"= array_\d\[column\]", text)


def test_generated_code_does_not_depend_on_shapes_or_constants():
    first, second = (loss_steps(*size) for size in ((64, 10), (200, 30)))
    texts = [print_launch(launch, "loss", ()).text for (launch,) in (first, second)]
    assert texts[0] == texts[1]


@pytest.mark.parametrize("columns", [10, 100, 2000])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_generated_code_respects_hardware_limits(dtype, columns):
    (launch,) = loss_steps(64, columns, dtype)
    text = print_launch(launch, "loss", ()).text
    # Any order of atomic additions would change the sums' last bits.
    assert "atomic" not in text
    sizes = {"float": 4, "double": 8, "int": 4, "long long": 8}
    shared = re.findall(r"__shared__ ([\w ]+) \w+\[THREADS\]", text)
    assert 0 < sum(256 * sizes[kind] for kind in shared) <= 48 << 10
    # A matrix may have more than 2^31 numbers, and as many rows.
    assert "const long long start = row * columns;" in text
    assert "long long rows" in text
    # Threads next to each other read numbers next to each other, where a row is long.
    lanes = int(re.search(r"#define LANES (\d+)", text)[1])
    assert lanes == (1 if columns <= 32 else 32 if columns <= 1024 else 256)
    assert "column = lane; column < n; column += LANES" in text


def test_adjacent_threads_read_adjacent_elements_in_a_total():
    def squares(x, *, xp):
        return [xp.sum(x * x)]

    (launch,) = steps_of(squares, Layout((4096, 4096), "float32"))
    text = print_launch(launch, "squares", ()).text
    assert "#define LANES 256" in text
    assert "for (int column = lane; column < n; column += LANES)" in text


def test_a_vector_can_have_more_than_2_to_the_31_elements():
    def total(x, *, xp):
        return [xp.sum(x)]

    (launch,) = steps_of(total, Layout((1 << 31,), "float32"))
    text = print_launch(launch, "total", ()).text
    assert "const long long n = is_inside ? (long long)columns : 0;" in text
    assert "for (long long column = lane;" in text


def test_parts_of_concatenated_columns_are_computed_separately():
    def apart(z, t, *, xp):
        joined = xp.concat([z[:, :3], xp.exp(z[:, 3:])], axis=1)
        errors = joined - xp.concat([t, t], axis=1)
        return [xp.sum(errors * errors, axis=1), errors[:, 3:]]

    values, inputs = trace_formula(
        apart, Layout((20, 6), "float32"), Layout((20, 3), "float32"), names=["z", "t"]
    )
    results = split_joined([array.node for array in values], inputs)
    *slices, launch = schedule(results, inputs)
    assert [node.operation for node in slices] == ["index", "index"]
    assert launch.needed == set(results)
