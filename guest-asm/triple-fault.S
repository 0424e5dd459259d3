// Triple fault: an exception with no handler, and none for that, and none for that.
//
// UD2 raises #UD; the interrupt table is empty, so its delivery raises #GP, whose delivery makes it
// a double fault, whose delivery fails too: the CPU shuts down (Intel SDM vol 3, "Interrupt
// 8 - Double Fault Exception"). kvmlite tells what led there.
//
// mode: long
// format: flat
// expect: ""
// status: 70

        .intel_syntax noprefix
        .code64
        .globl  _start
_start:
        lidt    [rip + no_table]
        ud2

no_table:
        .word   0                       // limit: not even vector 0 fits
        .quad   0
