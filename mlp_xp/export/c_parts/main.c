int main(void)
{
    static char bytes[${NAME}_MAX_ROW];
    static const char *fields[$n_fields];
    static $T out[${NAME}_OUTPUTS];
    $declarations
    long number;
    int n, i;
    for (number = 1; (n = ${name}_read(bytes, fields, number)) != 0; number++) {
        if (n != $n_fields) {
            fprintf(stderr, "$name: row %ld has %d fields, but must have $n_fields.\n", number, n);
            return 1;
        }
$statements
        ${name}_predict($argument, out);
        for (i = 0; i < ${NAME}_OUTPUTS; i++) {
            printf(i ? ",%.${digits}g" : "%.${digits}g", (double)out[i]);
        }
        putchar('\n');
    }
    if (ferror(stdin) || fflush(stdout) || ferror(stdout)) {
        fprintf(stderr, "$name: cannot read the rows or write the predictions.\n");
        return 1;
    }
    return 0;
}
