#ifdef ${NAME}_MAIN
/* The program: it reads rows of a CSV file without a header, and prints predictions. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifndef ${NAME}_MAX_ROW
#define ${NAME}_MAX_ROW $longest /* the bytes that a row may have */
#endif
