/* Return the most probable class. */
$F int ${name}_class$ending(const $T *out)
{
    int best = 0, i;
    for (i = 1; i < $n; i++) {
        best = out[$start + i] > out[$start + best] ? i : best;
    }
    return best;
}
