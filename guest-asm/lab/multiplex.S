// A batch of requests to a para-virtual disk, one of which may lie, for the experiment `multiplex`.
//
// A ring of 64 descriptors; the lab has told the back end where it is. The guest describes the requests,
// offers all at once, rings the doorbell and stops at port END. It runs in ring 3, with all ports open.
//
// lab: multiplex
// mode: long
// format: flat

#include "probe.inc"

#define END 0xF0

#define DESCRIPTORS 0x300000
#define AVAILABLE 0x301000
#define USED 0x302000
#define HEADERS 0x303000                // for each request 32 bytes: type, 0, sector; at 16 its status
#define DATA 0x310000                   // for each request a sector
#define DOORBELL 0x30000000
#define NOWHERE 0x700000000000          // no memory of the guest's

#define NEXT 1
#define WRITE 2

        .intel_syntax noprefix
        .code64
        probes_start

// R12 = how many, up to 21; R13 = 0 to read, 1 to write; R14 = the first sector; R15 = which one lies;
// RSI = what all words of the data are.
        probe   "batch"
        mov     r9, rsi
        xor     ebx, ebx
1:      mov     edi, ebx                // the header
        shl     edi, 5
        add     edi, HEADERS
        mov     [rdi], r13
        lea     rax, [r14 + rbx]
        mov     [rdi + 8], rax
        mov     byte ptr [rdi + 16], 0xFF

        lea     r8d, [rbx + rbx * 2]    // the first of its three descriptors
        mov     esi, r8d
        shl     esi, 4
        add     esi, DESCRIPTORS
        mov     [rsi], rdi
        mov     dword ptr [rsi + 8], 16
        mov     word ptr [rsi + 12], NEXT
        lea     ecx, [r8 + 1]
        mov     [rsi + 14], cx
        lea     rax, [rdi + 16]         // the last
        mov     [rsi + 32], rax
        mov     dword ptr [rsi + 40], 1
        mov     word ptr [rsi + 44], WRITE
        mov     word ptr [rsi + 46], 0

        mov     edi, ebx                // the data
        shl     edi, 9
        add     edi, DATA
        mov     [rsi + 16], rdi
        cmp     rbx, r15
        jne     2f
        mov     rax, NOWHERE
        mov     [rsi + 16], rax
2:      mov     dword ptr [rsi + 24], 512
        mov     eax, NEXT | WRITE
        test    r13, r13
        jz      3f
        mov     eax, NEXT
3:      mov     [rsi + 28], ax
        lea     ecx, [r8 + 2]
        mov     [rsi + 30], cx
        mov     ecx, 64
        mov     rax, r9
        cld
        rep stosq

        movzx   eax, word ptr [AVAILABLE + 2]
        add     eax, ebx
        and     eax, 63
        mov     [AVAILABLE + 4 + rax * 2], r8w
        inc     ebx
        cmp     ebx, r12d
        jb      1b

        mfence                          // the slots first, then the index
        mov     edi, AVAILABLE
        add     [rdi + 2], r12w
        mfence
        mov     edi, DOORBELL
        mov     dword ptr [rdi], 0
        out     END, al
        ud2
        probes_end
