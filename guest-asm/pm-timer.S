// Times 10 ms of the 8254 by ACPI's power-management timer.
//
// The timer counts up in 24 bits, 3579545 times a second, on every machine with ACPI (ACPI 6.5,
// 4.8.3.3). The interval timer's clock is exactly a third of it, so 11932 of its ticks (10 ms)
// should be 35796 here; on a busy host it is more, for the two are not read at one instant.
//
// mode: real
// format: flat
// expect: "The timer agrees.\n"
// status: 0

#include "ports.inc"

#define TICKS 11932                     // 10 ms of the 8254

        .intel_syntax noprefix
        .code16
        .globl  _start
_start:
        mov     dx, PM_TIMER            // before the 8254 begins: what comes between is not missed
        in      eax, dx
        mov     ebp, eax
        mov     al, 0x30                // channel 0, low byte then high, mode 0: counts down once
        out     PIT_COMMAND, al
        mov     al, TICKS & 0xFF
        out     PIT_CHANNEL0, al
        mov     al, TICKS >> 8
        out     PIT_CHANNEL0, al

1:      mov     al, 0xE2                // read back channel 0's status: bit 7 is its output
        out     PIT_COMMAND, al
        in      al, PIT_CHANNEL0
        test    al, 0x80
        jz      1b

        mov     dx, PM_TIMER
        in      eax, dx
        sub     eax, ebp
        and     eax, 0xFFFFFF           // the difference is right across the end of 24 bits
        mov     esi, offset agrees
        cmp     eax, 3 * TICKS * 9 / 10
        jae     2f
        mov     esi, offset too_slow
2:      call    print
        mov     dx, PM1A_CONTROL
        mov     ax, PM1_SLP_EN
        out     dx, ax
        hlt

#include "print.inc"

agrees:   .asciz  "The timer agrees.\n"
too_slow: .asciz  "The timer is too slow.\n"
