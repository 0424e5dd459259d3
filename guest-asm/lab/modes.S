// Privileged instructions and a few that aren't, one at a time, for the experiment `modes`.
//
// Each probe is a routine. The lab calls it in the guest's ring 0 and ring 3, and in a process of
// the host's: the same bytes in three worlds. A probe gets the address of its scratch memory in RDI
// (include/probe.inc says what is there), leaves R12 to R15 alone and ends in RET.
//
// lab: modes
// mode: long
// format: flat

#include "probe.inc"

        .intel_syntax noprefix
        .code64
        probes_start

        probe   "NOP"                   // nothing special: what the harness itself costs
        nop
        ret
        probe   "CLI"
        cli
        ret
        probe   "HLT"
        hlt
        ret
        probe   "LGDT"                  // loads what is loaded already
        lgdt    [rdi + SCRATCH_GDTR]
        ret
        probe   "LIDT"
        lidt    [rdi + SCRATCH_IDTR]
        ret
        probe   "LTR"                   // LTR refuses a busy TSS, and makes it busy: undo that first
        mov     rax, [rdi + SCRATCH_GDTR + 2]
        test    rax, rax
        jz      1f
        and     byte ptr [rax + SELECTOR_TSS + 5], 0xFD
1:      mov     eax, SELECTOR_TSS
        ltr     ax
        ret
        probe   "MOV from CR0"
        mov     rax, cr0
        ret
        probe   "MOV to CR0"
        mov     rax, [rdi + SCRATCH_CR0]
        mov     cr0, rax
        ret
        probe   "MOV from CR3"
        mov     rax, cr3
        ret
        probe   "MOV to CR3"
        mov     rax, [rdi + SCRATCH_CR3]
        mov     cr3, rax
        ret
        probe   "MOV from CR4"
        mov     rax, cr4
        ret
        probe   "MOV to CR4"
        mov     rax, [rdi + SCRATCH_CR4]
        mov     cr4, rax
        ret
        probe   "MOV to DR7"
        mov     eax, 0x400              // no breakpoint
        mov     dr7, rax
        ret
        probe   "RDMSR EFER"
        mov     ecx, 0xC0000080
        rdmsr
        ret
        probe   "WRMSR EFER"
        mov     ecx, 0xC0000080
        mov     eax, [rdi + SCRATCH_EFER]
        xor     edx, edx
        wrmsr
        ret
        probe   "RDMSR FS_BASE"
        mov     ecx, 0xC0000100
        rdmsr
        ret
        probe   "WRMSR FS_BASE"
        mov     ecx, 0xC0000100
        xor     eax, eax
        xor     edx, edx
        wrmsr
        ret
        probe   "IN"
        in      al, 0x80
        ret
        probe   "OUT"
        out     0x80, al
        ret
        probe   "INVLPG"
        invlpg  [rdi]
        ret
        probe   "WBINVD"
        wbinvd
        ret

        // Controls: what a kernel runs, too, and what isn't privileged, or only by CR4.TSD.
        probe   "ADD"
        add     eax, 1
        ret
        probe   "CPUID"
        push    rbx
        xor     eax, eax
        xor     ecx, ecx
        cpuid
        pop     rbx
        ret
        probe   "RDTSC"
        rdtsc
        ret
        probe   "SMSW"
        smsw    eax
        ret
        probes_end
