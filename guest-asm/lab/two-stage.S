// Page tables of its own, with pages of 4 KiB, 2 MiB and 1 GiB, for the experiment `two-stage`.
//
// Writes a word through each of three virtual addresses and halts with the tables in CR3.
//
// lab: two-stage
// mode: long
// format: flat

#define PML4 0x100000                   // tables, a page each
#define SMALL_PDPT 0x101000
#define SMALL_PD 0x102000
#define SMALL_PT 0x103000
#define LARGE_PDPT 0x104000
#define LARGE_PD 0x105000
#define HUGE_PDPT 0x106000
#define SELF_PDPT 0x107000              // this code's own: the first GiB onto itself
#define SELF_PD 0x108000

#define SMALL_IN_REGION 0x12345000      // PDPT entry 0, PD 145, PT 325
#define LARGE 0x0000008000200000        // PML4 entry 1, PDPT 0, PD 1
#define HUGE 0x0000010080000000         // PML4 entry 2, PDPT 2

#define SMALL_FRAME 0x345000
#define LARGE_FRAME 0x400000
#define HUGE_FRAME 0

#define PRESENT_WRITE 3
#define USER 4
#define PAGE 0x80                       // a page, not a table

        .intel_syntax noprefix
        .code64
        .globl  _start
_start: jmp     1f
        .balign 8
slot:   .quad   254                     // offset 8: the PML4 entry of SMALL; the lab may change it
1:
        mov     qword ptr [PML4], SELF_PDPT + PRESENT_WRITE
        mov     qword ptr [SELF_PDPT], SELF_PD + PRESENT_WRITE
        mov     edi, SELF_PD
        mov     eax, PRESENT_WRITE + PAGE
        mov     ecx, 8                  // 16 MiB are enough
1:      mov     [rdi], rax
        add     rdi, 8
        add     eax, 0x200000
        dec     ecx
        jnz     1b

        mov     rsi, [rip + slot]
        mov     qword ptr [PML4 + rsi * 8], SMALL_PDPT + PRESENT_WRITE + USER
        mov     qword ptr [SMALL_PDPT], SMALL_PD + PRESENT_WRITE + USER
        mov     qword ptr [SMALL_PD + 145 * 8], SMALL_PT + PRESENT_WRITE + USER
        mov     qword ptr [SMALL_PT + 325 * 8], SMALL_FRAME + PRESENT_WRITE + USER

        mov     qword ptr [PML4 + 8], LARGE_PDPT + PRESENT_WRITE
        mov     qword ptr [LARGE_PDPT], LARGE_PD + PRESENT_WRITE
        mov     qword ptr [LARGE_PD + 8], LARGE_FRAME + PRESENT_WRITE + PAGE

        mov     qword ptr [PML4 + 16], HUGE_PDPT + PRESENT_WRITE
        mov     qword ptr [HUGE_PDPT + 16], HUGE_FRAME + PRESENT_WRITE + PAGE

        mov     eax, PML4
        mov     cr3, rax

        mov     rbx, rsi                // SMALL lies in the region of that entry
        shl     rbx, 39
        mov     rax, SMALL_IN_REGION
        add     rbx, rax
        mov     rax, 0x111
        mov     [rbx + 0x678], rax
        movabs  rbx, LARGE
        mov     rax, 0x222
        mov     [rbx + 0x12345], rax
        mov     eax, 0x80000001         // are there pages of 1 GiB?
        cpuid
        bt      edx, 26
        jnc     2f
        movabs  rbx, HUGE
        mov     rax, 0x333
        mov     [rbx + 0x555000], rax
2:      hlt
