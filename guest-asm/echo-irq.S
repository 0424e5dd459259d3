// Echoes what you type until Ctrl-D or q, asleep until the UART interrupts (IRQ 4).
//
// No exit happens while nothing is typed: compare --stats with echo's, which polls.
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
        call    interrupts_init
        mov     cl, 4
        mov     ax, offset on_byte
        call    irq_handle
        mov     esi, offset prompt
        call    print

        mov     dx, COM1_MCR
        mov     al, 0x0B                // DTR, RTS and OUT2, the gate of the interrupt line
        out     dx, al
        mov     dx, COM1_IER
        mov     al, 1                   // tell when a byte has come
        out     dx, al

1:      sti                             // STI lets no interrupt in before the next instruction is
        hlt                             // done: none can slip in between the check and HLT
        cli
        cmp     byte ptr [done], 0
        je      1b

        mov     esi, offset bye
        call    print
        mov     dx, PM1A_CONTROL
        mov     ax, PM1_SLP_EN
        out     dx, ax
        hlt

// Takes every byte that waits: the line stays up while there is one, but the PIC sees only edges.
on_byte:
        push    ax
        push    dx
1:      mov     dx, COM1_LSR
        in      al, dx
        test    al, LSR_DATA_READY
        jz      3f
        mov     dx, COM1
        in      al, dx
        cmp     byte ptr [done], 0      // what follows the q is swallowed
        jne     1b
        cmp     al, CTRL_D
        je      2f
        cmp     al, 'q'
        je      2f
        call    print_char
        jmp     1b
2:      mov     byte ptr [done], 1
        jmp     1b
3:      mov     al, PIC_EOI
        out     PIC1_COMMAND, al
        pop     dx
        pop     ax
        iret

#include "print.inc"
#include "interrupts.inc"

prompt: .asciz  "Type, and end with Ctrl-D or q.\n"
bye:    .asciz  "\nBye.\n"

        .bss
done:   .skip   1
