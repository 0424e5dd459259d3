// Hello from 16-bit real mode: print one line on COM1 and halt.
//
// The smallest guest there is. DS is the segment that the image was loaded into, so a label's
// offset from the image's first byte is its address.
//
// mode: real
// format: flat
// expect: "Hello from real mode!\n"
// status: 0

#include "ports.inc"

        .intel_syntax noprefix
        .code16
        .globl  _start
_start:
        mov     esi, offset message
        call    print
        cli                             // with interrupts off HLT waits for ever:
        hlt                             // the run is over

#include "print.inc"

message:
        .asciz  "Hello from real mode!\n"
