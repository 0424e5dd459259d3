// The cost of nothing: what the other cost guests do before and after their loop.
//
// mode: protected
// format: flat
// operations: 0
// expect: ""
// status: 0

        .intel_syntax noprefix
        .code32
        .globl  _start
_start:
        cli
        hlt
