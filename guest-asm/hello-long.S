// Hello from 64-bit long mode: print one line on COM1 and halt.
//
// Paging is on: kvmlite's page tables map the first 4 GiB onto themselves. Writing ESI clears the
// upper half of RSI (Intel SDM vol 1, 3.4.1.1), so the same line loads an address below 4 GiB.
//
// mode: long
// format: flat
// expect: "Hello from long mode!\n"
// status: 0

#include "ports.inc"

        .intel_syntax noprefix
        .code64
        .globl  _start
_start:
        mov     esi, offset message
        call    print
        cli
        hlt

#include "print.inc"

message:
        .asciz  "Hello from long mode!\n"
