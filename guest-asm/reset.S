// Resets the machine the old way: command 0xFE to the keyboard controller at port 0x64.
//
// The controller's output line 0 is wired to the CPU's reset pin. Ends with status 0 under
// --no-reboot; without it the machine starts again, and says so again, for ever.
//
// mode: real
// format: flat
// options: --no-reboot
// expect: "Resetting...\n"
// status: 0

#include "ports.inc"

        .intel_syntax noprefix
        .code16
        .globl  _start
_start:
        mov     esi, offset message
        call    print
        mov     al, I8042_RESET
        out     I8042_COMMAND, al
        mov     esi, offset still_here
        call    print
        cli
        hlt

#include "print.inc"

message:
        .asciz  "Resetting...\n"
still_here:
        .asciz  "still here\n"
