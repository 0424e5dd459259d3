// Leaves through the exit port: value 3, so kvmlite ends with status 7.
//
// A test that runs in a virtual machine says this way how it went. 0 isn't to be had, so that no
// end by accident looks like this one.
//
// mode: real
// format: flat
// expect: "Status (3 << 1) | 1\n"
// status: 7

#include "ports.inc"

        .intel_syntax noprefix
        .code16
        .globl  _start
_start:
        mov     esi, offset message
        call    print
        mov     al, 3
        out     EXIT_PORT, al
        hlt                             // never reached

#include "print.inc"

message:
        .asciz  "Status (3 << 1) | 1\n"
