/* Whether text is empty, or a word such as NA that means a missing value. */
$F int ${name}_is_missing(const char *text)
{
$spaces$words    char word[$n_chars];
    size_t length = strlen(text), before, i;
    do {
        before = length;
        for (i = 0; i < $n_spaces; i++) {
            const size_t n = strlen(spaces[i]);
            if (length >= n && memcmp(text, spaces[i], n) == 0) {
                text += n;
                length -= n;
            }
            if (length >= n && memcmp(text + length - n, spaces[i], n) == 0) {
                length -= n;
            }
        }
    } while (length < before);
    if (length >= sizeof word) {
        return 0;
    }
    for (i = 0; i < length; i++) {
        word[i] = (char)(text[i] >= 'A' && text[i] <= 'Z' ? text[i] - 'A' + 'a' : text[i]);
    }
    word[length] = 0;
    for (i = 0; i < $n_words; i++) {
        if (strcmp(word, words[i]) == 0) {
            return 1;
        }
    }
    return 0;
}
