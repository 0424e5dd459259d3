// What must run before Swift's runtime does: it finds arguments and its own place by /proc/self/maps,
// which may not be there to read (chroot, Landlock, no descriptor left). Only the command links this:
// a shared library may not have a .preinit_array.
#include <stdlib.h>
#ifdef __GLIBC__
#include <malloc.h>
#endif

#include "cstart.h"

int clinux_argument_total;
char **clinux_arguments;

// The C library calls what is in .preinit_array before any constructor, with main's arguments.
static void start(int count, char **arguments, char **environment) {
  (void)environment;
  clinux_argument_total = count;
  clinux_arguments = arguments;
  // Without it the static runtime looks for the program's path, and aborts where that can't be had. A
  // program that is linked dynamically doesn't look, and never sees this.
  setenv("SWIFT_ROOT", "/", 0);
#ifdef __GLIBC__
  // Else the C library counts processors, by a file, when a ninth thread wants an arena: that may be
  // after the sandbox has closed.
  mallopt(M_ARENA_MAX, 16);
#endif
}
__attribute__((section(".preinit_array"), used)) static void (*const entry)(int, char **, char **) =
    start;
