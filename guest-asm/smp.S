// Wakes all CPUs and counts them.
//
// Only one CPU runs at first, the bootstrap processor (BSP). It sends the others INIT and then SIPI
// (start-up IPI), which makes each begin in real mode at a page of the BSP's choice (Intel SDM
// vol 3, "Multiple-Processor (MP) Initialization"). Each counts itself with a LOCKed increment,
// without which two could count as one.
//
// mode: protected
// format: flat
// cpus: 4
// expect: "4 CPUs\n"
// status: 0

#include "ports.inc"

#define AP_START 0x8000                 // where the others begin: below 1 MiB, on a page boundary
#define ARRIVED 0x7000                  // how many have come, 16 bits, within real mode's reach

#define ICR_INIT 0x000C4500             // INIT, level asserted, to all but self
#define ICR_SIPI 0x000C4600             // start-up, to all but self; the low byte is the page

        .intel_syntax noprefix
        .code32
        .globl  _start
_start:
        mov     word ptr [ARRIVED], 1   // the BSP itself
        cld
        mov     esi, offset ap_code
        mov     edi, AP_START
        mov     ecx, offset AP_SIZE
        rep movsb

        mov     eax, 1                  // CPUID leaf 1: EBX bits 23 to 16 = how many logical CPUs
        cpuid
        shr     ebx, 16
        movzx   ebp, bl

        or      dword ptr [LAPIC_SVR], 1 << 8           // an APIC must be enabled to send
        mov     dword ptr [LAPIC_ICR_LOW], ICR_INIT
        mov     dword ptr [LAPIC_ICR_LOW], ICR_SIPI | (AP_START >> 12)

        mov     ecx, 200000             // wait until all have come, but not for ever
1:      cmp     word ptr [ARRIVED], bp
        jae     2f
        in      al, POST_PORT           // takes a microsecond or more on every machine
        loop    1b

2:      movzx   eax, word ptr [ARRIVED]
        call    print_decimal
        mov     esi, offset cpus
        call    print
        mov     dx, PM1A_CONTROL
        mov     ax, PM1_SLP_EN
        out     dx, ax
        hlt

// What every other CPU runs, in real mode, with CS = AP_START >> 4 and IP = 0.
        .code16
ap_code:
        xor     ax, ax
        mov     ds, ax
        lock inc word ptr [ARRIVED]
1:      cli
        hlt
        jmp     1b
        .equ    AP_SIZE, . - ap_code

        .code32
#include "print.inc"

cpus:   .asciz  " CPUs\n"
