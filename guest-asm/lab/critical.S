// Sensitive instructions of x86, one at a time, for the experiment `critical`.
//
// None of them is privileged by the manual, yet each shows or changes the state by which ring 0 is
// ring 0. The lab calls these routines as those of modes.S; each leaves what it saw in [RDI].
//
// lab: critical
// mode: long
// format: flat

#include "probe.inc"

#define FAR_POINTER 0x30                // in the scratch memory: 32-bit offset, selector

        .intel_syntax noprefix
        .code64
        probes_start

        probe   "NOP"                   // what the harness itself costs
        nop
        ret
        probe   "SGDT"                  // limit and base of the GDT
        sgdt    [rdi]
        ret
        probe   "SIDT"
        sidt    [rdi]
        ret
        probe   "SLDT"                  // the LDT's selector
        sldt    word ptr [rdi]
        ret
        probe   "STR"                   // the TSS's selector
        str     word ptr [rdi]
        ret
        probe   "SMSW"                  // the low half of CR0
        smsw    eax
        mov     [rdi], rax
        ret
        probe   "PUSHF"
        pushfq
        pop     qword ptr [rdi]
        ret
        probe   "POPF"                  // turns the interrupt flag over, and looks what it is now
        pushfq
        xor     dword ptr [rsp], 0x200
        mov     rax, [rsp]
        mov     [rdi + 8], rax          // what it asks for
        popfq
        pushfq
        pop     qword ptr [rdi]
        ret
        probe   "LAR"                   // access rights of the stack's segment
        mov     eax, ss
        lar     ecx, eax
        mov     [rdi], rcx
        ret
        probe   "LSL"                   // its limit
        mov     eax, ss
        lsl     ecx, eax
        mov     [rdi], rcx
        ret
        probe   "VERR"                  // 1: it can be read
        mov     eax, ss
        verr    ax
        setz    byte ptr [rdi]
        ret
        probe   "VERW"                  // 1: it can be written
        mov     eax, ss
        verw    ax
        setz    byte ptr [rdi]
        ret
        probe   "MOV from CS"           // its low two bits are the ring
        mov     eax, cs
        mov     [rdi], rax
        ret
        probe   "MOV to ES"
        mov     eax, ss
        mov     es, eax
        ret
        probe   "PUSH GS"
        .byte   0x0F, 0xA8              // push gs, 64 bits wide: clang's "push gs" has 16
        pop     qword ptr [rdi]
        ret
        probe   "POP GS"
        .byte   0x0F, 0xA8              // push gs
        .byte   0x0F, 0xA9              // pop gs
        ret
        probe   "CALL far"
        lea     rax, [rip + 1f]
        mov     [rdi + FAR_POINTER], eax
        mov     eax, cs
        mov     [rdi + FAR_POINTER + 4], ax
        call    fword ptr [rdi + FAR_POINTER]
        ret
1:      add     rsp, 8                  // the 32-bit return address: go back near, without RETF
        ret
        probe   "JMP far"
        lea     rax, [rip + 1f]
        mov     [rdi + FAR_POINTER], eax
        mov     eax, cs
        mov     [rdi + FAR_POINTER + 4], ax
        jmp     fword ptr [rdi + FAR_POINTER]
1:      ret
        probe   "RET far"
        mov     eax, cs
        push    rax
        lea     rax, [rip + 1f]
        push    rax
        retfq
1:      ret
        probe   "INT n"                 // the gate lets ring 0 alone through
        int     0x81
        ret
        probe   "IRET"                  // to where it is already
        mov     eax, ss
        push    rax
        lea     rax, [rsp + 8]
        push    rax
        pushfq
        mov     eax, cs
        push    rax
        lea     rax, [rip + 1f]
        push    rax
        iretq
1:      ret
        probe   "load"                  // named by the lecture: what it gives is the map's doing
        mov     rax, [rdi + 8]
        ret
        probe   "store"
        mov     [rdi + 8], rax
        ret
        probes_end
