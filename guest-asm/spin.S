// Never ends and never exits: a jump to itself. Try it with --timeout.
//
// mode: real
// format: flat
// options: --timeout 1
// expect: ""
// status: 124

        .intel_syntax noprefix
        .code16
        .globl  _start
_start:
        jmp     _start
