/* Compute c[0] * x^7 + ... + c[7]. */
$F double ${name}_polynomial(const double *c, double x)
{
    double y = c[0];
    int i;
    for (i = 1; i < 8; i++) {
        y = y * x + c[i];
    }
    return y;
}

/* Map x to a normal distribution, given n sorted quantiles. */
$F double ${name}_normal_score(double x, const double *edges, int n)
{
$coefficients    int below = 0, reached = 0, high = n; /* edges below x, and edges of at most x */
    double p, center, r, tail;
    while (below < high) {
        const int middle = below + (high - below) / 2;
        if (edges[middle] < x) {
            below = middle + 1;
        } else {
            high = middle;
        }
    }
    for (reached = below, high = n; reached < high;) {
        const int middle = reached + (high - reached) / 2;
        if (edges[middle] <= x) {
            reached = middle + 1;
        } else {
            high = middle;
        }
    }
    if (x - $edge < edges[0]) {
        p = 0.0;
    } else if (x + $edge > edges[n - 1]) {
        p = 1.0;
    } else if (reached > below) {
        p = 0.5 * (below + reached - 1) / (n - 1);
    } else {
        const double start = edges[below - 1];
        p = (below - 1 + (x - start) / (edges[below] - start)) / (n - 1);
    }
    p = p < $edge ? $edge : p > 1.0 - $edge ? 1.0 - $edge : p;
    center = p - 0.5;
    if (fabs(center) <= 0.425) {
        r = 0.180625 - center * center;
        return center * ${name}_polynomial(middle_top, r) / ${name}_polynomial(middle_bottom, r);
    }
    r = sqrt(-log(center < 0.0 ? p : 1.0 - p)) - 1.6;
    tail = ${name}_polynomial(tail_top, r) / ${name}_polynomial(tail_bottom, r);
    return center < 0.0 ? -tail : tail;
}
