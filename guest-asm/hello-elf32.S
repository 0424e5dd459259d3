// Hello from an ELF32 file: loaded at 1 MiB, entered in protected mode.
//
// Its program header tells where the bytes go and how much zeroed memory follows them: `count` is
// in .bss, takes no room in the file and must read as 0.
//
// mode: protected
// format: elf32
// expect: "Hello from ELF32, .bss is 0!\n"
// status: 0

#include "ports.inc"

        .intel_syntax noprefix
        .code32
        .globl  _start
_start:
        mov     esi, offset message
        call    print
        mov     eax, dword ptr [count]
        call    print_decimal
        mov     esi, offset end
        call    print
        cli
        hlt

#include "print.inc"

        .section .rodata
message:
        .asciz  "Hello from ELF32, .bss is "
end:
        .asciz  "!\n"

        .bss
count:  .skip   4
