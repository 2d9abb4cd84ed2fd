/* The same, with all names bound and made read-only when it is loaded. */
#include "deepbind.lib.c"
