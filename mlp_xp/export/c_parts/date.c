/* Return the number in the next n digits of text, or -1 if there are fewer. */
$F int ${name}_digits(const char **text, int n)
{
    int value = 0;
    for (; n > 0; n--, ++*text) {
        if (**text < '0' || **text > '9') {
            return -1;
        }
        value = 10 * value + (**text - '0');
    }
    return value;
}

/* Read hours, minutes and seconds, with or without colons; return the seconds, or -1. */
$F long ${name}_clock(const char **text)
{
    const int hours = ${name}_digits(text, 2), has_colon = **text == ':';
    int parts[2] = {0, 0}, i;
    for (i = 0; i < 2 && (has_colon ? **text == ':' : **text >= '0' && **text <= '9'); i++) {
        *text += has_colon;
        parts[i] = ${name}_digits(text, 2);
        if (parts[i] < 0 || parts[i] > 59) {
            return -1;
        }
    }
    return hours < 0 || hours > 23 ? -1 : 3600L * hours + 60L * parts[0] + parts[1];
}

/* Read an ISO 8601 date as year, day of year, weekday, second of day and days since 1970 in UTC;
   return 0 if it is invalid. Monday and January 1 are 0. */
$F int ${name}_parse_date(const char *text, double *parts)
{
    static const int lengths[12] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    int year, month, day, is_leap, i;
    double micros = 0.0, unit = 1e5;
    long seconds = 0;
    text += strspn(text, " \t\r\n");
    year = ${name}_digits(&text, 4);
    if (year < 1 || *text++ != '-') {
        return 0;
    }
    month = ${name}_digits(&text, 2);
    if (month < 1 || month > 12 || *text++ != '-') {
        return 0;
    }
    day = ${name}_digits(&text, 2) - 1;
    is_leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
    if (day < 0 || day >= lengths[month - 1] + (month == 2 && is_leap)) {
        return 0;
    }
    for (i = 0; i < month - 1; i++) {
        day += lengths[i] + (i == 1 && is_leap);
    }
    if ((*text == 'T' || *text == 't' || *text == ' ') && text[1] >= '0' && text[1] <= '9') {
        text++;
        seconds = ${name}_clock(&text);
        if ((*text == '.' || *text == ',') && text[1] >= '0' && text[1] <= '9') {
            for (text++; *text >= '0' && *text <= '9'; text++, unit = floor(unit / 10.0)) {
                micros += unit * (*text - '0');
            }
        }
        if (seconds >= 0 && (*text == '+' || *text == '-')) {
            const int sign = *text++ == '+' ? 1 : -1;
            const long offset = ${name}_clock(&text);
            if (offset < 0) {
                return 0;
            }
            seconds -= sign * offset;
            day += seconds < 0 ? -1 : seconds >= 86400L;
            seconds += seconds < 0 ? 86400L : seconds >= 86400L ? -86400L : 0;
        } else if (seconds >= 0) {
            text += *text == 'Z';
        } else {
            return 0;
        }
    }
    if (day < 0) {
        year--;
        day = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0 ? 365 : 364;
    } else if (day > 364 + is_leap) {
        year++;
        day = 0;
    }
    if (year < 1 || year > 9999 || text[strspn(text, " \t\r\n")]) {
        return 0;
    }
    i = year - 1;
    parts[0] = year;
    parts[1] = day;
    i = 365 * i + i / 4 - i / 100 + i / 400 + day;
    parts[2] = i % 7;
    parts[3] = ((double)seconds * 1e6 + micros) / 1e6;
    parts[4] = i - 719162 + parts[3] / 86400.0;
    return 1;
}

/* Read a date; stop if it is invalid, or if it is missing and kind is 0. */
$F void ${name}_date(long row, int column, const char *field, int kind, double *parts)
{
    if (!${name}_is_missing(field)) {
        if (!${name}_parse_date(field, parts)) {
            ${name}_stop(row, column, field,
                "is not a date such as 2024-12-31 or 2024-12-31T18:30:00+01:00.");
        }
        return;
    }
    if (kind == 0) {
        ${name}_stop(row, column, field, ${name}_refused);
    }
    parts[0] = parts[1] = parts[2] = parts[3] = parts[4] = NAN;
}
