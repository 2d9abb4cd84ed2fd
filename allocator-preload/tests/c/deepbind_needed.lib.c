/* The same, to be loaded because another one needs it. */
#include "deepbind.lib.c"
