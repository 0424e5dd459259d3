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

// The virtual processor, as the hypervisor keeps it.
#define VIRTUAL_IF 0x200000             // 0x200 or 0, as in RFLAGS
#define VIRTUAL_CR3 0x200008
#define PENDING 0x200030                // 1 if a device wants to interrupt
#define VIRTUAL_CR0 0x200038
#define VIRTUAL_IDTR 0x200040

#define CONSOLE 0xE9
#define QUEUE 0x95                      // each reading takes a byte
#define STATUS 0x96                     // bit 5: ready for a character; reading it changes nothing
#define TIMER 0x97                      // a write makes it interrupt
#define LET_IN 0x98                     // para-virtual: look for interrupts
#define RETURN 0x99                     // para-virtual: IRETQ

#define VECTOR 0x20
#define EFER 0xC0000080

        .intel_syntax noprefix
        .code64

        // A hypercall if an interrupt is to be let in.
        .macro  let_in
        push    rcx
        mov     ecx, [PENDING]
        jrcxz   out\@
        mov     ecx, [VIRTUAL_IF]
        jrcxz   out\@
        pop     rcx
        out     LET_IN, al
        jmp     done\@
out\@:   pop     rcx
done\@:
        .endm

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
        let_in
        .else
        sti
        .endif
        .endm
        // Sleeps with interrupts on. What comes between the two instructions must wake it.
        .macro  v_idle
        .if     pv
        mov     dword ptr [VIRTUAL_IF], 0x200
        .else
        sti
        .endif
        hlt
        .endm
        .macro  v_iret
        .if     pv
        out     RETURN, al
        .else
        iretq
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
        popfq
        let_in
        .else
        popfq
        .endif
        .endm
        .macro  v_smsw
        .if     pv
        mov     rax, [VIRTUAL_CR0]
        .else
        smsw    eax
        .endif
        .endm
        .macro  v_cr3
        .if     pv
        mov     rax, [VIRTUAL_CR3]
        .else
        mov     rax, cr3
        .endif
        .endm
        // To [RDI + 32].
        .macro  v_sidt
        .if     pv
        mov     rax, [VIRTUAL_IDTR]
        mov     [rdi + 32], rax
        movzx   eax, word ptr [VIRTUAL_IDTR + 8]
        mov     [rdi + 40], rax
        .else
        mov     qword ptr [rdi + 40], 0
        sidt    [rdi + 32]
        .endif
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

        // Finds its interrupt table, puts a handler there, and lets the timer interrupt after each critical
        // section, and while it sleeps.
        probe   "irq\suffix"
        v_smsw
        and     eax, 0xFFFF
        mov     [rdi + 24], rax
        v_sidt
        mov     rbx, [rdi + 34]
        mov     edx, offset handler\@
        movzx   eax, dx
        or      eax, 8 << 16
        mov     [rbx + VECTOR * 16], eax
        and     edx, 0xFFFF0000
        or      edx, 0x8E00             // present, an interrupt gate
        mov     [rbx + VECTOR * 16 + 4], edx
        mov     qword ptr [rbx + VECTOR * 16 + 8], 0
        v_cr3
        mov     [rdi + 48], rax
        mov     cr3, rax
        mov     ecx, EFER
        rdmsr
        mov     [rdi + 56], rax
        xor     eax, eax
        xor     r8d, r8d
        xor     r9d, r9d
        mov     rcx, r12
        v_sti
ticks\@: v_pushf
        v_cli
        out     TIMER, al
        inc     rax
        v_popf
        dec     rcx
        jnz     ticks\@
        v_cli
        out     TIMER, al
        v_idle
        mov     [rdi], rax
        look
        hlt
// R8 = ticks, R9 = what RAX was at each
handler\@:
        lea     r8, [r8 + 1]
        lea     r9, [r9 + rax]
        v_iret

        // Prints what a queue holds, when the device is ready.
        probe   "device\suffix"
        xor     ebx, ebx
        mov     rcx, r12
1:      in      al, STATUS
        test    al, 0x20
        jz      1b
        movzx   eax, al
        add     rbx, rax
        in      al, QUEUE
        movzx   eax, al
        add     rbx, rax
        out     CONSOLE, al
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
