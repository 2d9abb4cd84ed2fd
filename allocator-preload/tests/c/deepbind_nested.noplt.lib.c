/* The same, to be opened by another one. */
#include "deepbind.lib.c"
