// hello-real for QEMU's microvm: the same line on COM1, as the ROM that the CPU starts in.
//
// 64 KiB at 0xF0000 (and below 4 GiB), entered at F000:FFF0. QEMU doesn't end at CLI and HLT, so it
// leaves through isa-debug-exit at port 0xF4: value 0, status 1. There is no stack in a ROM, so it
// calls nothing.
//
// mode: real
// format: flat
// expect: "Hello from real mode!\n"
// status: 1

#include "ports.inc"

        .intel_syntax noprefix
        .code16
        .globl  _start
_start:
        mov     ax, cs
        mov     ds, ax
        mov     si, offset message
        mov     dx, COM1
1:      lodsb
        test    al, al
        jz      2f
        out     dx, al
        jmp     1b
2:      out     EXIT_PORT, al
        hlt

message:
        .asciz  "Hello from real mode!\n"

        .org    0xFFF0
        jmp     _start
        .org    0x10000
