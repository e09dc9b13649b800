static const char ${name}_refused[] =
    "is a missing value, but the network was trained without missing values.";

/* Stop with an error for a row, or for a field of it. */
$F void ${name}_stop(long row, int column, const char *field, const char *problem)
{
$columns    fprintf(stderr, "$name: row %ld", row);
    if (field) {
        fprintf(stderr, ", column %d$label: '%.60s'", column + 1$which, field);
    }
    fprintf(stderr, " %s\n", problem);
    exit(1);
}

/* Read a row of a CSV file into fields; return their number, or 0 at the end of the file. */
$F int ${name}_read(char *bytes, const char **fields, long row)
{
    size_t used = 0;
    int n = 0, c = getchar();
    while (c == '\n' || c == '\r') { /* Skip empty lines. */
        c = getchar();
    }
    if (c == EOF) {
        return 0;
    }
    for (;; c = getchar()) {
        char *field = bytes + used;
        int is_quoted = c == '"';
        if (is_quoted) {
            c = getchar();
        }
        for (;; c = getchar()) {
            if (is_quoted && c == '"') {
                c = getchar();
                if (c != '"') {
                    break;
                }
            } else if (is_quoted && c == EOF) {
                ${name}_stop(row, 0, NULL, "has a quote that is not closed.");
            } else if (!is_quoted && (c == ',' || c == '\n' || c == '\r' || c == EOF)) {
                break;
            }
            if (c == 0) {
                ${name}_stop(row, 0, NULL, "has a null byte: convert the file to UTF-8.");
            }
            if (used + 2 > ${NAME}_MAX_ROW) {
                break;
            }
            bytes[used++] = (char)c;
            if (row == 1 && n == 0 && used == 3 && !is_quoted &&
                memcmp(bytes, "\357\273\277", 3) == 0) { /* Skip the byte order mark. */
                used = 0;
                c = getchar();
                is_quoted = c == '"';
                if (!is_quoted) {
                    ungetc(c, stdin);
                }
            }
        }
        if (used + 2 > ${NAME}_MAX_ROW) {
            fprintf(stderr, "$name: row %ld has more than %ld bytes: close its quotes, or compile "
                "with -D${NAME}_MAX_ROW=%ld.\n", row, (long)${NAME}_MAX_ROW,
                2 * (long)${NAME}_MAX_ROW);
            exit(1);
        }
        if (c != ',' && c != '\n' && c != '\r' && c != EOF) {
            ${name}_stop(row, 0, NULL, "has text after a closing quote: double quotes in text.");
        }
        bytes[used++] = 0;
        if (n < $n_fields) {
            fields[n] = field;
        }
        n++;
        if (c != ',') {
            break;
        }
    }
    if (c == '\r') {
        c = getchar();
        if (c != '\n') {
            ungetc(c, stdin);
        }
    }
    return n;
}
