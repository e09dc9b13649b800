/* Return the number in a field, or NAN if it is missing.
   kind: 0 if the number must not be missing, 1 if it may be, 2 for yes and no, -1 for other text. */
$F $T ${name}_number(long row, int column, const char *field, int kind)
{
    static const char *const words[4] = {"no", "yes", "false", "true"};
    static const char *const spaces = " \t\r\n";
    const char *text = field + strspn(field, spaces);
    char *end;
    double number;
    int i, j;
    if (${name}_is_missing(text)) {
        if (kind == 0) {
            ${name}_stop(row, column, field, ${name}_refused);
        }
        return ($T)NAN;
    }
    for (i = 0; i < 4; i++) {
        for (j = 0; words[i][j] && (text[j] | 32) == words[i][j]; j++) {
        }
        if (!words[i][j] && !text[j + (int)strspn(text + j, spaces)]) {
            return ($T)(i % 2);
        }
    }
    number = strtod(text, &end);
    /* Refuse hexadecimal and infinite numbers. */
    if (end == text || end[strspn(end, spaces)] || text[strspn(text, "0123456789+-.eE \t\r\n")] ||
        !(fabs(number) <= $largest)) {
        if (kind == 2) {
            return -1;
        }
        ${name}_stop(row, column, field, "is not a number within the range of $T.");
    }
    return ($T)number;
}
