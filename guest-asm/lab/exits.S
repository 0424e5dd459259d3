// What leaves the guest, and what it costs: operations that the experiment `exits` times.
//
// lab: exits
// mode: long
// format: flat

#include "probe.inc"

#define UNBACKED 0x30000000             // mapped by the guest, without memory behind it
#define UNMAPPED 0x40000000             // behind the end of the guest's page tables
#define UNKNOWN_MSR 0x1234

        .intel_syntax noprefix
        .code64
        probes_start

        // R14 = an operation, R15 = how often, R13 = where the cycles of each go. R12 is taken, too.
        probe   "(sample)"
1:      rdtsc
        shl     rdx, 32
        lea     r12, [rax + rdx]
        call    r14
        rdtsc
        shl     rdx, 32
        add     rax, rdx
        sub     rax, r12
        mov     [r13], rax
        add     r13, 8
        dec     r15
        jnz     1b
        hlt

        // A page fault's handler: skips the three bytes of the MOV below.
        probe   "(page fault)"
        add     rsp, 8                  // the error code
        add     qword ptr [rsp], 3
        iretq

        probe   "(interrupt)"
        iretq

        probe   "nothing"
        ret
        probe   "RDTSC"
        rdtsc
        ret
        probe   "page fault of the guest"
        mov     ebx, UNMAPPED
        mov     rax, [rbx]              // three bytes long
        ret
        probe   "CPUID"
        xor     eax, eax
        xor     ecx, ecx
        cpuid
        ret
        probe   "RDMSR EFER"
        mov     ecx, 0xC0000080
        rdmsr
        ret
        probe   "first touch of a page"
        mov     al, [r11]
        add     r11, 4096
        ret
        probe   "RDMSR unknown"
        mov     ecx, UNKNOWN_MSR
        rdmsr
        ret
        probe   "OUT"
        out     0x80, al
        ret
        probe   "IN"
        in      al, 0x80
        ret
        probe   "MMIO write"
        mov     ebx, UNBACKED
        mov     [rbx], eax
        ret
        probe   "MMIO read"
        mov     ebx, UNBACKED
        mov     eax, [rbx]
        ret
        probe   "HLT"
        hlt
        ret
        probe   "HLT until interrupt"        // sleeps until the lab sends an interrupt
        sti
        hlt
        cli
        ret
        probes_end
