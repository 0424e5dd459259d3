// Ten ticks of the timer: one dot every 10 ms, and sleep in between.
//
// The 8254 (PIT) divides its 1.19 MHz clock down to 100 Hz and pulls IRQ 0; the 8259A (PIC) hands
// it to the CPU as vector 0x20; the table at address 0 tells where the handler is.
//
// mode: real
// format: flat
// expect: "..........\n"
// status: 0

#include "ports.inc"

        .intel_syntax noprefix
        .code16
        .globl  _start
_start:
        call    interrupts_init
        mov     cl, 0
        mov     ax, offset on_tick
        call    irq_handle

        mov     al, 0x34                // channel 0, low byte then high, mode 2: rate generator
        out     PIT_COMMAND, al
        mov     al, (PIT_HZ / 100) & 0xFF
        out     PIT_CHANNEL0, al
        mov     al, (PIT_HZ / 100) >> 8
        out     PIT_CHANNEL0, al

        sti
1:      hlt                             // until an interrupt's handler has returned
        cmp     byte ptr [ticks], 10
        jb      1b

        cli
        mov     al, '\n'
        call    print_char
        mov     dx, PM1A_CONTROL
        mov     ax, PM1_SLP_EN
        out     dx, ax
        hlt

on_tick:
        push    ax
        push    dx
        cmp     byte ptr [ticks], 10    // on a slow host another one may come before the end
        jae     2f
        inc     byte ptr [ticks]
        mov     al, '.'
        call    print_char
2:      mov     al, PIC_EOI
        out     PIC1_COMMAND, al
        pop     dx
        pop     ax
        iret

#include "print.inc"
#include "interrupts.inc"

        .bss
ticks:  .skip   1
