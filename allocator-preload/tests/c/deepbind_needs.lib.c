/* A library that has nothing of the heap, and needs one that has. */
#include "deepbind.h"

struct deepbind *needs(void);
struct deepbind *needs(void)
{
    return &deepbind_functions;
}
