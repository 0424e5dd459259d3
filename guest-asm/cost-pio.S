// The cost of a port-I/O exit: writes to port 0x80 in a loop.
//
// `operations` below is also the symbol OPERATIONS. Take cost-empty's time off and divide.
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
1:      out     POST_PORT, al           // one exit
        loop    1b
        mov     al, 0
        out     EXIT_PORT, al
        hlt
