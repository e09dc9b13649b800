/* Return the position, from 1, of x in n sorted values; 0 if unknown, n + 1 if missing. */
$F int ${name}_find_number($T x, const $T *values, int n)
{
    int low = 0, high = n;
    while (low < high) {
        const int middle = low + (high - low) / 2;
        if (x == values[middle]) {
            return middle + 1;
        }
        if (x < values[middle]) {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    return isnan(x) ? n + 1 : 0;
}
