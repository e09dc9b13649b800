#ifdef ${NAME}_TEST
/* The test: it compares predictions for rows with the predictions of Python. */
#include <stdio.h>
int main(void)
{
    static const $row_type rows[$n_rows]$row_suffix = {
        $rows};
    static const double expected[$n_rows][$n_outputs] = {
        $expected};
    static $T out[${NAME}_OUTPUTS];
    int i, j, n_wrong = 0;
    for (i = 0; i < $n_rows; i++) {
        ${name}_predict($argument, out);
        for (j = 0; j < $n_outputs; j++) {
            const double y = expected[i][j], found = (double)out[j];
            if (!(fabs(found - y) <= $tolerance * (1.0 + fabs(y)) || (y != y && found != found))) {
                printf("$name: row %d, output %d is %.9g, but must be %.9g.\n", i + 1, j,
                    found, y);
                n_wrong++;
            }
        }
    }
    printf("$name: %d of %d outputs are right.\n", $n_rows * $n_outputs - n_wrong,
        $n_rows * $n_outputs);
    return n_wrong > 0;
}
#endif /* ${NAME}_TEST */
