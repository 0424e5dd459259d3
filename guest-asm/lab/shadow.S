// A kernel that changes its page tables and uses memory as it is told, for the experiment `shadow`.
//
// R13 = a list of orders of 32 bytes: what, address, value, and room for the result. R12 = 1 if
// kvmlite keeps shadow tables, 0 if the processor (or KVM) uses the kernel's own.
//
// lab: shadow
// mode: long
// format: flat

#include "probe.inc"

#define FAULT_PORT 0x90                 // read: 0 if kvmlite filled the missing entry
#define ROOT_PORT 0x94                  // write: the kernel's root; read: the root to load

#define ORDER_END 0
#define ORDER_STORE 1                   // stores a value, as to a page-table entry
#define ORDER_FLUSH 2                   // INVLPG
#define ORDER_READ 3
#define ORDER_WRITE 4
#define ORDER_ROOT 5                    // loads CR3

        .intel_syntax noprefix
        .code64
        probes_start

        probe   "kernel"
next:   mov     rax, [r13]
        mov     rbx, [r13 + 8]
        mov     rcx, [r13 + 16]
        cmp     eax, ORDER_STORE
        je      store
        cmp     eax, ORDER_FLUSH
        je      flush
        cmp     eax, ORDER_READ
        je      read
        cmp     eax, ORDER_WRITE
        je      write
        cmp     eax, ORDER_ROOT
        je      root
        hlt

store:  mov     [rbx], rcx
        jmp     done
flush:  invlpg  [rbx]
        jmp     done
read:   mov     rax, [rbx]
        mov     [r13 + 24], rax
        jmp     done
write:  mov     [rbx], rcx
        mov     qword ptr [r13 + 24], 0
        jmp     done
root:   test    r12d, r12d              // MOV to CR3 doesn't come to kvmlite: ask by a port
        jz      1f
        mov     eax, ebx
        out     ROOT_PORT, eax
        in      eax, ROOT_PORT
        mov     ebx, eax
1:      mov     cr3, rbx
done:   add     r13, 32
        jmp     next

        // On the stack: RAX, the error code, RIP, CS and so on.
        probe   "(page fault)"
        push    rax
        test    r12d, r12d
        jz      1f
        in      al, FAULT_PORT          // kvmlite looks at CR2 and the kernel's tables
        test    al, al
        jnz     1f
        mov     rax, cr2                // the entry changed behind the processor's back
        invlpg  [rax]
        pop     rax
        add     rsp, 8
        iretq
1:      mov     qword ptr [r13 + 24], -1 // the kernel's own fault: note it and go on
        lea     rax, [rip + done]
        mov     [rsp + 16], rax
        pop     rax
        add     rsp, 8
        iretq
        probes_end
