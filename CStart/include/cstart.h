// CStart: what the program was started with, for CLinux's inline functions.
#pragma once

extern int clinux_argument_total;
extern char **clinux_arguments;
