// A kernel that runs in ring 3 without knowing: its privileged instructions trap, and kvmlite does
// them. Only POPF and MOV from CS tell the truth, for the experiment `shadow`.
//
// lab: shadow
// mode: long
// format: flat

#include "probe.inc"

#define DEBUG_CONSOLE 0xE9

        .intel_syntax noprefix
        .code64
        probes_start
        probe   "kernel"
        cli
        mov     rax, cr3
        mov     [rdi], rax              // 0: the root that it found
        mov     eax, 0x123000
        mov     cr3, rax
        mov     rax, cr3
        mov     [rdi + 8], rax          // 8: the root that it set
        mov     ecx, 0xC0000080
        rdmsr
        mov     [rdi + 16], eax         // 16: EFER
        mov     al, '!'
        out     DEBUG_CONSOLE, al
        in      al, DEBUG_CONSOLE
        mov     [rdi + 24], al          // 24: what the port gave
        sti
        pushfq                          // turns interrupts off, as kernels do: nobody is told
        and     dword ptr [rsp], ~0x200
        popfq
        mov     eax, cs
        mov     [rdi + 32], rax         // 32: CS
        hlt
        probes_end
