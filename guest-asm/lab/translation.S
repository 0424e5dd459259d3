// Small kernels that are run in ring 0, de-privileged, translated and para-virtual, for the experiment
// `translation`.
//
// Each is there twice: as it would be written for ring 0, and with what doesn't trap replaced by hand,
// using the interrupt flag that the hypervisor keeps in memory. RDI = where results go, R12 = rounds.
//
// lab: translation
// mode: long
// format: flat

#include "probe.inc"

#define VIRTUAL_IF 0x200000             // 0x200 or 0, as in RFLAGS
#define CONSOLE 0xE9
#define STATUS 0x95                     // 1 on every fifth reading

        .intel_syntax noprefix
        .code64

        .macro  v_cli
        .if     pv
        mov     dword ptr [VIRTUAL_IF], 0
        .else
        cli
        .endif
        .endm
        .macro  v_sti
        .if     pv
        mov     dword ptr [VIRTUAL_IF], 0x200
        .else
        sti
        .endif
        .endm
        .macro  v_pushf
        pushfq
        .if     pv
        pushfq
        push    rax
        mov     rax, [rsp + 16]
        and     eax, ~0x200
        or      eax, [VIRTUAL_IF]
        mov     [rsp + 16], rax
        pop     rax
        popfq
        .endif
        .endm
        .macro  v_popf
        .if     pv
        push    rax
        mov     rax, [rsp + 8]
        and     eax, 0x200
        mov     [VIRTUAL_IF], eax
        pop     rax
        .endif
        popfq
        .endm
        .macro  v_cs register
        .if     pv
        mov     \register, 8
        .else
        mov     \register, cs
        .endif
        .endm

        // What interrupts and the ring look like now, to [RDI + 8] and [RDI + 16].
        .macro  look
        v_pushf
        pop     rdx
        and     edx, 0x200
        mov     [rdi + 8], rdx
        v_cs    edx
        mov     [rdi + 16], rdx
        .endm

        .macro  kernels suffix
        // A critical section in each round, as kernels have them.
        probe   "loop\suffix"
        xor     eax, eax
        mov     rcx, r12
        v_sti
1:      v_pushf
        v_cli
        inc     rax
        v_popf
        dec     rcx
        jnz     1b
        mov     [rdi], rax
        look
        mov     al, '.'
        out     CONSOLE, al
        hlt

        // The same with a call in each round.
        probe   "calls\suffix"
        xor     eax, eax
        mov     rcx, r12
        v_sti
1:      v_pushf
        v_cli
        call    2f
        v_popf
        dec     rcx
        jnz     1b
        mov     [rdi], rax
        look
        mov     al, '.'
        out     CONSOLE, al
        hlt
2:      push    rbx
        mov     rbx, rax
        lea     rax, [rbx + 1]
        pop     rbx
        ret

        // Polls a device's status before each character.
        probe   "device\suffix"
        xor     ebx, ebx
        mov     rcx, r12
1:      in      al, STATUS
        test    al, al
        jz      1b
        mov     al, '#'
        out     CONSOLE, al
        inc     rbx
        dec     rcx
        jnz     1b
        mov     [rdi], rbx
        look
        hlt

        // Changes an instruction that it has run, and runs it again.
        probe   "self\suffix"
        xor     eax, eax
        xor     edx, edx
        mov     rcx, r12
changed\@:
        mov     edx, 1                  // BA, and the number that is changed
        add     rax, rdx
        mov     ebx, offset changed\@ + 1
        mov     [rbx], cl
        dec     rcx
        jnz     changed\@
        mov     [rdi], rax
        look
        mov     dword ptr [rbx], 1      // as it was, for the next run
        hlt
        .endm

        probes_start
        .set    pv, 0
        kernels ""
        .set    pv, 1
        kernels ", para-virtual"
        probes_end
