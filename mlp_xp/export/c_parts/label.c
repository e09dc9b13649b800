/* Return the name of class i. */
$F const char *${name}_label$ending(int i)
{
$labels    return labels[i];
}
