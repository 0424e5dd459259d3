// Echoes what you type until Ctrl-D or q, asking the UART again and again (polling).
//
// Every look at the line status register is an exit: compare --stats with echo-irq's.
//
// mode: real
// format: flat
// input: "Hello, kvmlite\nq"
// expect: "Type, and end with Ctrl-D or q.\nHello, kvmlite\n\nBye.\n"
// status: 0

#include "ports.inc"

#define CTRL_D 4

        .intel_syntax noprefix
        .code16
        .globl  _start
_start:
        mov     esi, offset prompt
        call    print
1:      pause
        mov     dx, COM1_LSR
        in      al, dx
        test    al, LSR_DATA_READY
        jz      1b
        mov     dx, COM1
        in      al, dx
        cmp     al, CTRL_D
        je      2f
        cmp     al, 'q'
        je      2f
        call    print_char
        jmp     1b
2:      mov     esi, offset bye
        call    print
        cli
        hlt

#include "print.inc"

prompt: .asciz  "Type, and end with Ctrl-D or q.\n"
bye:    .asciz  "\nBye.\n"
