// Memory accesses whose time is the translation's, for the experiment `tlb`.
//
// lab: tlb
// mode: long
// format: flat

#include "probe.inc"

        .intel_syntax noprefix
        .code64
        probes_start

        // RBX = a pointer to a pointer to a pointer..., RCX = how many to follow. Leaves the cycles in
        // [RDI]. Each load's address is the last one's data, so none can start early.
        probe   "chase"
        rdtsc
        shl     rdx, 32
        lea     r8, [rax + rdx]
1:      mov     rbx, [rbx]
        dec     rcx
        jnz     1b
        rdtsc
        shl     rdx, 32
        add     rax, rdx
        sub     rax, r8
        mov     [rdi], rax
        hlt                             // in ring 3 a fault: the lab expects it

        // RBX = an address, RSI = where its page-table entry is, R9 = another entry. Reads it before
        // and after the entry changes, without telling the processor.
        probe   "change"
        mov     rax, [rbx]
        mov     [rsi], r9
        mov     rcx, [rbx]
        mov     [rdi], rax
        mov     [rdi + 8], rcx
        hlt

        // The same, and once more after INVLPG: for ring 0.
        probe   "change, INVLPG"
        mov     rax, [rbx]
        mov     [rsi], r9
        mov     rcx, [rbx]
        invlpg  [rbx]
        mov     rdx, [rbx]
        mov     [rdi], rax
        mov     [rdi + 8], rcx
        mov     [rdi + 16], rdx
        hlt

        probe   "INVLPG"
        invlpg  [rbx]
        hlt

        probe   "read"
        mov     rax, [rbx]
        mov     [rdi + 16], rax
        hlt
        probes_end
