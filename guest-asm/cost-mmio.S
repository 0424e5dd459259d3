// The cost of an MMIO exit: 32-bit writes to an address where nothing is, in a loop.
//
// mode: protected
// format: flat
// operations: 20000
// expect: ""
// status: 1

#include "ports.inc"

        .intel_syntax noprefix
        .code32
        .globl  _start
_start:
        mov     ecx, OPERATIONS
        mov     edi, NOWHERE
1:      mov     dword ptr [edi], eax    // one exit
        loop    1b
        mov     al, 0
        out     EXIT_PORT, al
        hlt
