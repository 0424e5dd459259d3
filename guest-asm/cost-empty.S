// The cost of nothing: what the other cost guests do before and after their loop.
//
// They all leave through the exit port: how soon HLT is seen to be the end is another matter.
//
// mode: protected
// format: flat
// operations: 0
// expect: ""
// status: 1

#include "ports.inc"

        .intel_syntax noprefix
        .code32
        .globl  _start
_start:
        mov     al, 0
        out     EXIT_PORT, al
        hlt
