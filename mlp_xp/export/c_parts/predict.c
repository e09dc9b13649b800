/* Predict a row, with a buffer of ${NAME}_WORK numbers. */
$F void ${name}_predict_with($parameter, $T *out, $T *work)
{
    $call
}

/* Predict a row, with a buffer on the stack. */
$F void ${name}_predict($parameter, $T *out)
{
    $T work[${NAME}_WORK];
    ${name}_predict_with($given, out, work);
}
