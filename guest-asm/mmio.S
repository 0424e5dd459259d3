// Memory-mapped I/O at an address where nothing is: reads give all ones, writes vanish.
//
// 0xD0000000 is mapped by the page tables, but neither RAM nor a device answers there, so every
// access leaves the guest with its address, width and data (KVM_EXIT_MMIO).
//
// mode: long
// format: flat
// expect: "8 bits: ok\n16 bits: ok\n32 bits: ok\n64 bits: ok\nstring: ok\n"
// status: 0

#include "ports.inc"

// Is `register` all ones? Its inverse must be 0.
#define REPORT(width, register)         \
        not     register;               \
        test    register, register;     \
        mov     esi, offset width;      \
        call    report

        .intel_syntax noprefix
        .code64
        .globl  _start
_start:
        mov     ebp, NOWHERE

        mov     byte ptr [rbp], 0x12    // dropped
        mov     al, [rbp]
        REPORT(bits8, al)

        mov     word ptr [rbp + 2], 0x1234
        mov     ax, [rbp + 2]
        REPORT(bits16, ax)

        mov     dword ptr [rbp + 4], 0x12345678
        mov     eax, [rbp + 4]
        REPORT(bits32, eax)

        mov     rax, 0x123456789ABCDEF0
        mov     [rbp + 8], rax
        mov     rax, [rbp + 8]
        REPORT(bits64, rax)

        cld                             // 16 bytes from nowhere into RAM, one access each
        mov     esi, NOWHERE
        mov     edi, offset buffer
        mov     ecx, 16
        rep movsb
        mov     rax, [rip + buffer]
        and     rax, [rip + buffer + 8]
        REPORT(string, rax)

        cli
        hlt

// Prints the text at RSI and the verdict: ZF set means right.
report:
        mov     ebx, offset right
        mov     ecx, offset wrong
        cmovnz  ebx, ecx
        call    print
        mov     esi, ebx
        jmp     print

#include "print.inc"

bits8:  .asciz  "8 bits: "
bits16: .asciz  "16 bits: "
bits32: .asciz  "32 bits: "
bits64: .asciz  "64 bits: "
string: .asciz  "string: "
right:  .asciz  "ok\n"
wrong:  .asciz  "WRONG\n"

        .bss
buffer: .skip   16
