// Accesses to memory of different kinds, for the experiment `slots`.
//
// lab: slots
// mode: long
// format: flat

#include "probe.inc"

#define PHASE_PORT 0x80                 // a write tells the lab that a phase is over
#define BALLOON_PORT 0x90               // a write of 32 bits gives the page of that number away

#define PAGE 4096

        .intel_syntax noprefix
        .code64
        probes_start

        // RBX = an address; leaves what it read in [RDI].
        probe   "read"
        mov     rax, [rbx]
        mov     [rdi], rax
        hlt

        probe   "write"
        mov     eax, 0x5A5A
        mov     [rbx], rax
        hlt

        // RBX = the first of many pages, R15 = phases. In phase n it writes to the R12 pages from
        // page 16 n on, and to the first page, which every phase writes.
        probe   "phases"
        mov     rsi, rbx
1:      mov     [rbx], rax              // the page that is always written
        mov     rdx, rsi
        mov     rcx, r12
2:      mov     [rdx], rax
        add     rdx, PAGE
        dec     rcx
        jnz     2b
        add     rsi, 16 * PAGE
        out     PHASE_PORT, al
        dec     r15
        jnz     1b
        hlt

        // RBX = the first of R12 pages: writes to each.
        probe   "touch"
1:      mov     [rbx], rbx
        add     rbx, PAGE
        dec     r12
        jnz     1b
        hlt

        // RBX = the first of R12 pages: tells the hypervisor that it needs none of them.
        probe   "inflate"
        shr     rbx, 12
        mov     dx, BALLOON_PORT
1:      mov     eax, ebx
        out     dx, eax
        inc     rbx
        dec     r12
        jnz     1b
        hlt
        probes_end
