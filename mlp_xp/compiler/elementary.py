"""Mathematical functions in instructions for the CPU: polynomials, without branches."""

from __future__ import annotations

import math

from mlp_xp.compiler.instructions import Body


def _reduce(b: Body, x: str) -> tuple[str, str, str]:
    """Return n as a number and as an integer, and r, for x = n ln 2 + r."""
    kind = b.type
    x = b.extreme("ogt", x, b.number(kind.lowest_exp))
    x = b.extreme("olt", x, b.number(kind.highest_exp))
    # Adding this number rounds to an integer, which is then in the lowest bits.
    magic = 1.5 * 2.0**kind.mantissa
    shifted = b.call("fmuladd", x, b.number(1 / math.log(2)), b.number(magic))
    n = b.subtract(shifted, b.number(magic))
    bits = b.bits(b.number(magic))
    integer = b.integer("sub", b.bits(shifted), bits)
    r = x
    for part in kind.ln2:
        r = b.call("fmuladd", n, b.number(-part), r)
    return n, integer, r


def _scale(b: Body, y: str, n: str) -> str:
    """Return y 2^n, in two steps, since 2^n may be infinite or 0 where the product is not."""
    half = b.integer("ashr", n, 1)
    for power in (half, b.integer("sub", n, half)):
        y = b.multiply(y, _power_of_2(b, power))
    return y


def _power_of_2(b: Body, n: str) -> str:
    biased = b.integer("add", n, b.type.bias)
    return b.from_bits(b.integer("shl", biased, b.type.mantissa))


def _exp_terms(b: Body) -> list[float]:
    return [1 / math.factorial(k) for k in range(b.type.n_exp - 1, -1, -1)]


def exp(b: Body, x: str, rest: str | None = None) -> str:
    """Return e^x, or e^(x + rest)."""
    _, n, r = _reduce(b, x)
    r = r if rest is None else b.add(r, rest)
    return _scale(b, b.series(r, _exp_terms(b)), n)


def expm1(b: Body, x: str, *, is_negative: bool = False) -> str:
    """Return e^x - 1 = 2^n (e^r - 1) + (2^n - 1), or 2^n e^r - 1 if n is large."""
    number, n, r = _reduce(b, x)
    *terms, _ = _exp_terms(b)
    rest = b.multiply(r, b.series(r, terms))
    power = _scale(b, b.number(1.0), n)
    minus_1 = b.number(-1.0)
    y = b.call("fmuladd", rest, power, b.add(power, minus_1))
    if is_negative:
        return y
    whole = b.add(_scale(b, b.add(rest, b.number(1.0)), n), minus_1)
    y = b.select(b.compare("ogt", number, b.number(60.0)), whole, y)
    return b.call("copysign", y, x)


def tanh(b: Body, x: str) -> str:
    """Return -(e^-2|x| - 1) / (e^-2|x| + 1), with the sign of x."""
    size = b.call("fabs", x)
    e = expm1(b, b.multiply(size, b.number(-2.0)), is_negative=True)
    y = b.divide(b.negative(e), b.add(e, b.number(2.0)))
    return b.call("copysign", y, x)


# A pair with twice the precision: a number plus a much smaller correction (Dekker, 1971).
_Sum = tuple[str, str]


def _add(b: Body, x: _Sum, y: _Sum) -> _Sum:
    """Return x + y, with x = 0 or |x| >= |y|."""
    high = b.add(x[0], y[0])
    error = b.subtract(y[0], b.subtract(high, x[0]))
    return high, b.add(error, b.add(x[1], y[1]))


def _multiply(b: Body, x: _Sum, y: _Sum) -> _Sum:
    high = b.multiply(x[0], y[0])
    error = b.call("fma", x[0], y[0], b.negative(high))
    return high, b.call("fmuladd", x[0], y[1], b.call("fmuladd", x[1], y[0], error))


def _split(b: Body, x: str) -> tuple[str, str]:
    """Return n and f for x = 2^n (1 + f), with 1 + f between the square roots of 1/2 and of 2."""
    kind = b.type
    is_tiny = b.compare("olt", x, b.number(kind.tiny))
    shift = kind.mantissa + 2
    scaled = b.select(is_tiny, b.multiply(x, b.number(2.0**shift)), x)
    bits, root = b.bits(scaled), b.bits(b.number(math.sqrt(0.5)))
    n = b.integer("ashr", b.integer("sub", bits, root), kind.mantissa)
    m = b.from_bits(b.integer("sub", bits, b.integer("shl", n, kind.mantissa)))
    count = b.new(f"sitofp {kind.integer} {n} to {kind.name}")
    count = b.subtract(count, b.select(is_tiny, b.number(float(shift)), b.number(0.0)))
    return count, b.add(m, b.number(-1.0))


def log(b: Body, x: str, base: float = math.e, rest: str | None = None) -> str:
    """Return log(2^n (1 + f)) = n log(2) + 2 artanh(s) / ln(base), with s = f / (2 + f).

    ``rest`` is a small number to add to a natural logarithm, which then is more accurate, too.
    """
    log_2, factor, low = {
        math.e: (b.type.ln2, 2.0, 0.0),
        2.0: ((1.0, 0.0), 2.8853900817779268, 4.0710547481862066e-17),
        10.0: (b.type.log10_2, 0.8685889638065036, 2.19663930043353e-17),
    }[base]
    factors = b.pair(factor, low)
    n, f = _split(b, x)
    s = b.divide(f, b.add(f, b.number(2.0)))
    z = b.multiply(s, s)
    terms = [factor / (2 * k + 1) for k in range(b.type.n_log, 0, -1)]
    y = b.multiply(s, b.multiply(z, b.series(z, terms)))
    y = b.add(y, b.multiply(n, b.number(log_2[1])))
    y = y if rest is None else b.add(y, rest)
    if base != math.e:
        y = b.call("fmuladd", s, factors[1], y)
    if rest is None:
        y = b.call("fmuladd", s, factors[0], y)
    else:  # As 2 s = f - s f, the error of s is not in the largest term.
        y = b.add(b.call("fmuladd", b.negative(s), f, y), f)
    y = b.call("fmuladd", n, b.number(log_2[0]), y)
    y = b.select(b.compare("oeq", x, b.number(math.inf)), x, y)
    y = b.select(b.compare("oeq", x, b.number(0.0)), b.number(-math.inf), y)
    return b.select(b.compare("ult", x, b.number(0.0)), b.number(math.nan), y)


def log1p(b: Body, x: str) -> str:
    """Return log(u) for u = 1 + x, corrected for the rounding error of u."""
    one = b.number(1.0)
    u = b.add(x, one)
    error = b.subtract(x, b.subtract(u, one))
    y = log(b, u)
    is_finite = b.compare("olt", u, b.number(math.inf))
    is_ordinary = b.both(is_finite, b.compare("ogt", u, b.number(0.0)))
    y = b.select(is_ordinary, b.add(y, b.divide(error, u)), y)
    return b.call("copysign", y, x)


def logaddexp(b: Body, x: str, y: str) -> str:
    """Return the larger number plus log(1 + e^-|x - y|)."""
    apart = b.negative(b.call("fabs", b.subtract(x, y)))
    z = b.add(b.extreme("ogt", x, y), log1p(b, exp(b, apart)))
    # Infinities of the same sign have no difference.
    return b.select(b.compare("oeq", x, y), b.add(x, b.number(math.log(2))), z)


def sign(b: Body, x: str) -> str:
    """Return -1, 0 or 1, or NaN."""
    zero = b.number(0.0)
    below = b.select(b.compare("olt", x, zero), b.number(-1.0), b.add(x, zero))  # Not -0.0.
    return b.select(b.compare("ogt", x, zero), b.number(1.0), below)


def sine(b: Body, x: str, name: str = "sin") -> str:
    """Return the sine or cosine of x = n pi / 2 + r, from the Taylor series of both at r.

    Multiples of pi / 2 are subtracted in three parts (Cody and Waite, 1980), which is accurate up
    to a bound. Beyond it, the C library computes the function.
    """
    kind = b.type
    magic = b.number(1.5 * 2.0**kind.mantissa)
    shifted = b.call("fmuladd", x, b.number(2 / math.pi), magic)
    n = b.subtract(shifted, magic)
    first, second, third = (b.number(-part) for part in kind.half_pi)
    left = b.call("fma", n, first, x)  # This is exact.
    high, low = _multiply(b, (n, b.number(0.0)), (second, third))
    r, rest = _add(b, (left, low), (high, b.number(0.0)))
    z = b.multiply(r, r)
    odd_terms, even_terms = (
        [(-1) ** (k // 2) / math.factorial(k) for k in range(2 * kind.n_sin + odd, 1, -2)]
        for odd in (1, 0)
    )
    sin = b.add(b.call("fmuladd", b.multiply(r, z), b.series(z, odd_terms), rest), r)
    half = b.call("fmuladd", z, b.series(z, even_terms), b.negative(b.multiply(r, rest)))
    cos = b.add(half, b.number(1.0))
    quadrant = b.integer("add", b.bits(shifted), int(name == "cos"))
    is_odd = b.new(f"trunc {kind.integer} {quadrant} to i1")
    size = b.select(is_odd, cos, sin)
    sign = b.integer("shl", b.integer("and", quadrant, 2), kind.width - 2)
    y = b.from_bits(b.integer("xor", b.bits(size), sign))
    if name == "sin":  # The series loses the sign of -0.0.
        y = b.select(b.compare("oeq", x, b.number(0.0)), x, y)
    return b.beyond(name, x, 2.0 ** (kind.mantissa * 5 // 8), y)


def _half_exp(b: Body, x: str) -> str:
    _, n, r = _reduce(b, x)
    return _scale(b, b.series(r, _exp_terms(b)), b.integer("sub", n, 1))


def sinh(b: Body, x: str) -> str:
    """Return e^|x| / 2 - e^-|x| / 2, or the Taylor series of small x."""
    size, z = b.call("fabs", x), b.multiply(x, x)
    e = _half_exp(b, size)
    terms = [1 / math.factorial(2 * k + 1) for k in range(b.type.n_exp - 1, 0, -1)]
    small = b.call("fmuladd", b.multiply(size, z), b.series(z, terms), size)
    large = b.subtract(e, b.divide(b.number(0.25), e))
    y = b.select(b.compare("olt", size, b.number(2.0)), small, large)
    return b.call("copysign", y, x)


def cosh(b: Body, x: str) -> str:
    """Return e^|x| / 2 + e^-|x| / 2."""
    e = _half_exp(b, b.call("fabs", x))
    return b.add(e, b.divide(b.number(0.25), e))


def atan(b: Body, x: str) -> str:
    """Return the angle, from the series at the nearest multiple of pi / 8, or 1 / x's angle."""
    size, one = b.call("fabs", x), b.number(1.0)
    is_large = b.compare("ogt", size, one)
    t = b.select(is_large, b.divide(one, size), size)
    center = angle = b.number(0.0)
    for k in (1, 2):
        is_past = b.compare("ogt", t, b.number(math.tan((2 * k - 1) * math.pi / 16)))
        center = b.select(is_past, b.number(math.tan(k * math.pi / 8)), center)
        angle = b.select(is_past, b.number(k * math.pi / 8), angle)
    d = b.divide(b.subtract(t, center), b.call("fmuladd", t, center, one))
    z = b.multiply(d, d)
    terms = [(-1) ** k / (2 * k + 1) for k in range(b.type.n_log, 0, -1)]
    y = b.call("fmuladd", b.multiply(d, z), b.series(z, terms), d)
    y = b.add(angle, y)
    y = b.select(is_large, b.subtract(b.number(math.pi / 2), y), y)
    return b.call("copysign", y, x)


def atan2(b: Body, y: str, x: str) -> str:
    """Return the angle of (x, y), with the special values of C's atan2."""
    size_y, size_x = b.call("fabs", y), b.call("fabs", x)
    is_same = b.compare("oeq", size_y, size_x)  # Also if both are infinite.
    t = b.select(is_same, b.number(1.0), b.divide(size_y, size_x))
    t = b.select(b.both(is_same, b.compare("oeq", size_y, b.number(0.0))), size_y, t)
    angle = atan(b, t)
    is_left = b.compare("olt", b.call("copysign", b.number(1.0), x), b.number(0.0))
    angle = b.select(is_left, b.subtract(b.number(math.pi), angle), angle)
    return b.call("copysign", angle, y)


def hypot(b: Body, x: str, y: str) -> str:
    """Return (x^2 + y^2)^(1/2); infinity beats NaN."""
    x, y = b.call("fabs", x), b.call("fabs", y)
    large, small = b.extreme("ogt", x, y), b.extreme("olt", x, y)
    ratio, zero, infinity = b.divide(small, large), b.number(0.0), b.number(math.inf)
    z = b.multiply(large, b.call("sqrt", b.call("fmuladd", ratio, ratio, b.number(1.0))))
    z = b.select(b.compare("oeq", large, zero), zero, z)
    for size in (x, y):
        z = b.select(b.compare("oeq", size, infinity), infinity, z)
    return z


def _truncated(b: Body, x: str, y: str) -> tuple[str, str]:
    """Return the remainder of x / y with the sign of x, and whether the sign of y is another."""
    rest, zero = b.arithmetic("frem", x, y), b.number(0.0)
    is_other = b.new(f"xor i1 {b.compare('olt', rest, zero)}, {b.compare('olt', y, zero)}")
    return rest, b.both(is_other, b.compare("one", rest, zero))


def remainder(b: Body, x: str, y: str) -> str:
    """Return the remainder of x / y with the sign of y."""
    rest, is_other = _truncated(b, x, y)
    z = b.add(rest, b.select(is_other, y, b.number(0.0)))
    is_zero = b.compare("oeq", z, b.number(0.0))
    return b.select(is_zero, b.call("copysign", z, y), z)


def floor_divide(b: Body, x: str, y: str) -> str:
    """Return x / y, rounded down, as NumPy computes it from the remainder."""
    rest, is_other = _truncated(b, x, y)
    ratio, zero, one = b.divide(x, y), b.number(0.0), b.number(1.0)
    z = b.divide(b.subtract(x, rest), y)
    z = b.subtract(z, b.select(is_other, one, zero))
    whole = b.call("floor", z)
    is_below = b.compare("ogt", b.subtract(z, whole), b.number(0.5))
    whole = b.add(whole, b.select(is_below, one, zero))
    whole = b.select(b.compare("oeq", z, zero), b.call("copysign", zero, ratio), whole)
    return b.select(b.compare("oeq", y, zero), ratio, whole)


def asin(b: Body, x: str) -> str:
    """Return atan(x / (1 - x^2)^(1/2))."""
    one = b.number(1.0)
    root = b.call("sqrt", b.multiply(b.subtract(one, x), b.add(one, x)))
    return atan(b, b.divide(x, root))


def acos(b: Body, x: str) -> str:
    """Return 2 atan(((1 - x) / (1 + x))^(1/2))."""
    one = b.number(1.0)
    root = b.call("sqrt", b.divide(b.subtract(one, x), b.add(one, x)))
    return b.multiply(b.number(2.0), atan(b, root))


def _log_of_sum(b: Body, x: str, rest: str) -> str:
    """Return log(1 + x + rest) for x > 0."""
    one = b.number(1.0)
    u = b.add(x, one)
    error = b.add(b.subtract(x, b.subtract(u, one)), rest)
    return log(b, u, rest=b.divide(error, u))


def _log_of_double(b: Body, x: str, large: str, small: str) -> str:
    """Return log(1 + large + small), or log(2 x) if x is so large that this is the same."""
    is_large = b.compare("ogt", x, b.number(2.0 ** (b.type.mantissa + 2)))
    rest = b.add(large, small)
    error = b.select(is_large, b.number(0.0), b.subtract(small, b.subtract(rest, large)))
    y = _log_of_sum(b, b.select(is_large, x, rest), error)
    return b.add(y, b.select(is_large, b.number(math.log(2)), b.number(0.0)))


# Up to this number, the series of the logarithm's function artanh gives `_small_asinh`.
_SMALL = 0.55


def _small_asinh(b: Body, x: str, root: str, rest: str) -> str:
    """Return arsinh(x) + rest = 2 artanh(s) + rest, for s = x / (1 + root), root^2 = 1 + x^2."""
    s = b.divide(x, b.add(root, b.number(1.0)))
    z = b.multiply(s, s)
    # As 2 s = x - x z, the result is x, and a small correction.
    series = b.series(z, [1 / (2 * k + 1) for k in range(b.type.n_log, 0, -1)])
    factor = b.call("fmuladd", b.negative(z), series, b.add(series, b.number(-1.0)))
    return b.add(x, b.call("fmuladd", b.multiply(x, z), factor, rest))


def asinh(b: Body, x: str) -> str:
    """Return log(|x| + (x^2 + 1)^(1/2)), with the sign of x."""
    size, one = b.call("fabs", x), b.number(1.0)
    square = b.multiply(size, size)
    root = b.call("sqrt", b.add(square, one))
    y = _log_of_double(b, size, size, b.divide(square, b.add(root, one)))
    small = _small_asinh(b, size, root, b.number(0.0))
    is_small = b.compare("olt", size, b.number(_SMALL))
    return b.call("copysign", b.select(is_small, small, y), x)


def acosh(b: Body, x: str) -> str:
    """Return log(x + (x^2 - 1)^(1/2)), or 2 arsinh(y), y = ((x - 1) / 2)^(1/2), near 1."""
    t = b.subtract(x, b.number(1.0))
    # The size keeps the root of x < -1 invalid.
    size = b.call("fabs", b.add(t, b.number(2.0)))
    root = b.call("sqrt", b.multiply(t, size))
    half = b.multiply(t, b.number(0.5))
    y = b.call("sqrt", half)
    error = b.divide(b.call("fma", b.negative(y), y, half), b.add(y, y))
    error = b.select(b.compare("oeq", y, b.number(0.0)), y, error)
    near = _small_asinh(b, y, b.call("sqrt", b.add(half, b.number(1.0))), error)
    is_near = b.compare("olt", half, b.number(_SMALL**2))
    return b.select(is_near, b.add(near, near), _log_of_double(b, x, root, t))


def atanh(b: Body, x: str) -> str:
    """Return log((1 + x) / (1 - x)) / 2, or its series."""
    size, one = b.call("fabs", x), b.number(1.0)
    z = b.multiply(x, x)
    terms = [1 / (2 * k + 1) for k in range(b.type.n_log, 0, -1)]
    small = b.call("fmuladd", b.multiply(size, z), b.series(z, terms), size)
    ratio = b.divide(b.multiply(size, b.number(2.0)), b.subtract(one, size))
    y = b.multiply(_log_of_sum(b, ratio, b.number(0.0)), b.number(0.5))
    y = b.select(b.compare("olt", size, b.number(0.25)), small, y)
    return b.call("copysign", y, x)


def _precise_log(b: Body, x: str) -> _Sum:
    """Return the logarithm of x > 0, as `log` computes it, in twice the precision."""
    n, f = _split(b, x)
    two = b.number(2.0)
    inverse = b.divide(b.number(1.0), b.add(f, two))
    s = b.multiply(f, inverse)
    rest = b.call("fma", b.negative(s), f, b.call("fma", s, b.number(-2.0), f))
    s_2 = s, b.multiply(rest, inverse)
    z = _multiply(b, s_2, s_2)
    cube = _multiply(b, z, s_2)
    third = _multiply(b, cube, b.pair(2 / 3, 3.700743415417188e-17))
    terms = [2 / (2 * k + 1) for k in range(b.type.n_log, 1, -1)]
    others = b.multiply(b.multiply(cube[0], z[0]), b.series(z[0], terms))
    high, low = (b.multiply(n, b.number(part)) for part in b.type.ln2)
    y = _add(b, (high, low), (b.multiply(s, two), b.multiply(s_2[1], two)))
    return _add(b, y, (third[0], b.add(third[1], others)))


def power(b: Body, x: str, y: str) -> str:
    """Return e^(y log |x|), with the sign of x if y is odd; with the special values of C's pow."""
    size, zero = b.call("fabs", x), b.number(0.0)
    infinity = b.number(math.inf)
    log_size = _precise_log(b, size)
    is_finite = b.compare("olt", size, infinity)
    is_zero = b.compare("oeq", size, zero)
    limit = b.select(is_zero, b.number(-math.inf), size)
    is_ordinary = b.new(f"xor i1 {is_zero}, {is_finite}")
    log_x = b.select(is_ordinary, log_size[0], limit)
    high, low = _multiply(b, (log_x, log_size[1]), (y, zero))
    is_small = b.compare("olt", b.call("fabs", high), b.number(1024.0))
    low = b.select(is_small, low, zero)
    for factor in (y, log_x):  # Here 0 times infinity is 0.
        high = b.select(b.compare("oeq", factor, zero), zero, high)
    z = exp(b, high, low)
    half = b.multiply(y, b.number(0.5))
    is_whole, is_even = (b.compare("oeq", b.call("floor", v), v) for v in (y, half))
    # Half of a subnormal number is 0, which is even.
    is_odd = b.new(f"icmp ugt i1 {is_whole}, {is_even}")
    z = b.select(is_odd, b.call("copysign", z, x), z)
    is_valid = b.new(f"or i1 {is_whole}, {b.compare('uge', x, zero)}")
    is_valid = b.new(f"or i1 {is_valid}, {b.compare('oeq', size, infinity)}")
    return b.select(is_valid, z, b.number(math.nan))
