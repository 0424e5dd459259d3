// Hello from 32-bit protected mode: print one line on COM1 and halt.
//
// The segments are flat: base 0, limit 4 GiB, so an address is an address.
//
// mode: protected
// format: flat
// expect: "Hello from protected mode!\n"
// status: 0

#include "ports.inc"

        .intel_syntax noprefix
        .code32
        .globl  _start
_start:
        mov     esi, offset message
        call    print
        cli
        hlt

#include "print.inc"

message:
        .asciz  "Hello from protected mode!\n"
