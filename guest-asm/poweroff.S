// Switches the power off, by ACPI's PM1a control register.
//
// A kernel finds the register's port in the FADT and the kind of sleep that is "off" (S5) in the
// DSDT; here both are known: port 0x604, and kind 0 in bits 12 to 10 (SLP_TYP). Bit 13 (SLP_EN)
// makes it happen (ACPI 6.5, 4.8.3.2).
//
// mode: real
// format: flat
// expect: "Switching off.\n"
// status: 0

#include "ports.inc"

        .intel_syntax noprefix
        .code16
        .globl  _start
_start:
        mov     esi, offset message
        call    print
        mov     dx, PM1A_CONTROL
        mov     ax, PM1_SLP_EN
        out     dx, ax
        mov     esi, offset still_here
        call    print
        cli
        hlt

#include "print.inc"

message:
        .asciz  "Switching off.\n"
still_here:
        .asciz  "still here\n"
