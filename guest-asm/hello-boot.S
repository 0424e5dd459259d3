// Hello from a boot sector: 512 bytes at 0x7C00 that end in 55 AA.
//
// What a BIOS loads from a disk's first sector and jumps to. It trusts no segment register, since
// BIOSes differ in what they leave there.
//
// mode: real
// format: boot-sector
// expect: "Hello from the boot sector!\n"
// status: 0

#include "ports.inc"

        .intel_syntax noprefix
        .code16
        .globl  _start
_start:
        xor     ax, ax
        mov     ds, ax                  // labels are addresses: the image is linked at 0x7C00
        mov     ss, ax
        mov     sp, 0x7C00              // the stack grows down from the code
        mov     esi, offset message
        call    print
        cli
        hlt

#include "print.inc"

message:
        .asciz  "Hello from the boot sector!\n"

        .org    510
        .byte   0x55, 0xAA              // the mark of a boot sector
