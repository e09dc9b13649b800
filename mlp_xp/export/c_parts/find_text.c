/* Return the position, from 1, of text in n sorted values; 0 if unknown, n + 1 if missing. */
$F int ${name}_find_text(const char *text, const char *const *values, int n)
{
    int low = 0, high = n;
    if (!text) {
        return n + 1;
    }
    while (low < high) {
        const int middle = low + (high - low) / 2, order = strcmp(text, values[middle]);
        if (order == 0) {
            return middle + 1;
        }
        if (order < 0) {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    return ${name}_is_missing(text) ? n + 1 : 0;
}
