// The cost of a byte of repeated input: REP INSB from the debug console, 4 KiB at a time.
//
// KVM fetches many bytes with one exit (kvm_run's io.count), so a byte costs far less than an exit.
//
// mode: protected
// format: flat
// operations: 8388608
// expect: ""
// status: 1

#include "ports.inc"

        .intel_syntax noprefix
        .code32
        .globl  _start
_start:
        cld
        mov     dx, DEBUG_CONSOLE
        mov     ebx, OPERATIONS / 4096
1:      mov     ecx, 4096
        mov     edi, 0x100000
        rep insb
        dec     ebx
        jnz     1b
        mov     al, 0
        out     EXIT_PORT, al
        hlt
