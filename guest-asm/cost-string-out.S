// The cost of a byte of repeated output: REP OUTSB to port 0x80, 4 KiB at a time.
//
// How many bytes go into one exit is KVM's choice; Linux 6 makes one exit of each.
//
// mode: protected
// format: flat
// operations: 20480
// expect: ""
// status: 1

#include "ports.inc"

        .intel_syntax noprefix
        .code32
        .globl  _start
_start:
        cld
        mov     dx, POST_PORT
        mov     ebx, OPERATIONS / 4096
1:      mov     ecx, 4096
        mov     esi, 0x100000
        rep outsb
        dec     ebx
        jnz     1b
        mov     al, 0
        out     EXIT_PORT, al
        hlt
