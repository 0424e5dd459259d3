// Finds the input of the IOAPIC that the 8254 interval timer is at.
//
// On a PC that is input 2, for the IOAPIC has the interrupts of the ISA bus at the inputs of their
// own numbers but for the timer's, 0. Each input gets a vector of its own, the timer is started, and
// the local APIC's interrupt request register (IRR) tells which vector has come: with interrupts off
// a vector stays there, and no handler is needed.
//
// mode: protected
// format: flat
// expect: "The timer is at input 2.\n"
// status: 0

#include "ports.inc"

#define FIRST_VECTOR 0x40               // of input 0; a multiple of 32, as IRR's registers hold 32 each
#define INPUTS 24
#define IRR (LAPIC + 0x200 + FIRST_VECTOR / 32 * 0x10)

        .intel_syntax noprefix
        .code32
        .globl  _start
_start:
        mov     al, 0xFF                // the 8259s shall not take it
        out     PIC1_DATA, al
        out     PIC2_DATA, al
        or      dword ptr [LAPIC_SVR], 1 << 8

        xor     ecx, ecx
1:      lea     eax, [ecx * 2 + 0x11]   // redirection entry, high half: to APIC ID 0
        mov     dword ptr [IOAPIC_INDEX], eax
        mov     dword ptr [IOAPIC_DATA], 0
        dec     eax                     // low half: the vector, fixed, edge-triggered, not masked
        mov     dword ptr [IOAPIC_INDEX], eax
        lea     eax, [ecx + FIRST_VECTOR]
        mov     dword ptr [IOAPIC_DATA], eax
        inc     ecx
        cmp     ecx, INPUTS
        jb      1b

        mov     al, 0x34                // channel 0, low byte then high, mode 2: again and again
        out     PIT_COMMAND, al
        mov     al, 0xA9                // 1193: every millisecond
        out     PIT_CHANNEL0, al
        mov     al, 0x04
        out     PIT_CHANNEL0, al

        mov     ecx, 200000             // wait, but not for ever
1:      mov     ebp, dword ptr [IRR]
        test    ebp, ebp
        jnz     2f
        in      al, POST_PORT           // takes a microsecond or more on every machine
        loop    1b

2:      mov     esi, offset timer
        call    print
        bsf     eax, ebp
        jz      3f
        call    print_decimal
3:      mov     esi, offset end
        call    print
        mov     dx, PM1A_CONTROL
        mov     ax, PM1_SLP_EN
        out     dx, ax
        hlt

#include "print.inc"

timer:  .asciz  "The timer is at input "
end:    .asciz  ".\n"
