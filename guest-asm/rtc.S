// Reads the memory size and the date from the CMOS, the battery-backed memory of the clock chip.
//
// Write a register's number to port 0x70, read its value from port 0x71. The date changes while
// it's read: if register A's top bit is up, an update is under way, so wait.
//
// mode: real
// format: flat
// expect: "Memory: 128 MiB\nDate: 20\d\d-\d\d-\d\d \d\d:\d\d:\d\d\n"
// status: 0

#include "ports.inc"

        .intel_syntax noprefix
        .code16
        .globl  _start
_start:
        mov     esi, offset memory
        call    print
        mov     al, 0x35                // memory above 16 MiB in units of 64 KiB, high byte
        call    read_cmos
        mov     bh, al
        mov     al, 0x34                // and low byte
        call    read_cmos
        mov     bl, al
        movzx   eax, bx
        shr     eax, 4
        add     eax, 16
        call    print_decimal

        mov     esi, offset date
        call    print
1:      mov     al, 0x0A
        call    read_cmos
        test    al, 0x80
        jnz     1b
        mov     si, offset fields
2:      mov     al, [si]                // a register's number
        call    read_cmos
        call    print_two_digits
        mov     al, [si + 1]            // and what stands behind its value, 0 for nothing
        add     si, 2
        test    al, al
        jz      2b
        call    print_char
        cmp     si, offset fields_end
        jb      2b
        cli
        hlt

// AL = register -> AL = its value.
read_cmos:
        out     CMOS_INDEX, al
        in      al, CMOS_DATA
        ret

// Prints AL, two digits: in BCD, or if register B's bit 2 is set, in binary.
print_two_digits:
        mov     ah, al
        mov     al, 0x0B
        call    read_cmos
        test    al, 1 << 2
        mov     al, ah
        jnz     1f
        shr     ah, 4
        and     al, 0x0F
        jmp     2f
1:      aam                             // AH = AL / 10, AL = AL mod 10
2:      add     ax, '0' << 8 | '0'
        xchg    al, ah
        call    print_char
        mov     al, ah
        jmp     print_char

#include "print.inc"

memory: .asciz  "Memory: "
date:   .asciz  " MiB\nDate: "
fields: .byte   0x32, 0                 // century
        .byte   0x09, '-'               // year
        .byte   0x08, '-'               // month
        .byte   0x07, ' '               // day
        .byte   0x04, ':'               // hours
        .byte   0x02, ':'               // minutes
        .byte   0x00, '\n'              // seconds
fields_end:
