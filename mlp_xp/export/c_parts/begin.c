#ifndef ${NAME}_H
#define ${NAME}_H

#if defined(__GNUC__)
#define ${NAME}_FUNCTION static __attribute__((unused))
#else
#define ${NAME}_FUNCTION static
#endif

#include <math.h>
