// Ring 3: builds page tables, GDT and TSS, goes to ring 3 by IRETQ and counts primes there.
//
// A page is open to ring 3 only if the user bit is set at every level of the tables (Intel SDM
// vol 3, "Access Rights"), a port if its bit in the TSS is clear (vol 1, "I/O Permission Bit
// Map"). This guest opens COM1 and the exit port, so it prints and ends without ring 0's help.
//
// mode: long
// format: flat
// expect: "Ring 3 counts 78498 primes below 1000000.\n"
// status: 0

#include "ports.inc"

#define TABLES 0x100000                 // PML4, PDPT and PD, a page each
#define SIEVE 0x200000                  // a byte a number
#define LIMIT 1000000

#define PRESENT_WRITE_USER 7
#define PAGE_2M (1 << 7)

#define USER_DATA (0x18 | 3)            // selectors with the requested privilege level 3
#define USER_CODE (0x20 | 3)
#define TSS 0x28

        .intel_syntax noprefix
        .code64
        .globl  _start
_start:
        // The first GiB, identity-mapped with 2 MiB pages, open to ring 3. RAM starts as zeroes.
        mov     qword ptr [TABLES], TABLES + 0x1000 + PRESENT_WRITE_USER
        mov     qword ptr [TABLES + 0x1000], TABLES + 0x2000 + PRESENT_WRITE_USER
        mov     edi, TABLES + 0x2000
        mov     eax, PRESENT_WRITE_USER + PAGE_2M
        mov     ecx, 512
1:      mov     [rdi], rax
        add     rdi, 8
        add     eax, 0x200000
        loop    1b
        mov     eax, TABLES
        mov     cr3, rax

        mov     eax, offset tss         // the TSS's address is scattered over its descriptor
        mov     [rip + tss_descriptor + 2], ax
        shr     eax, 16
        mov     [rip + tss_descriptor + 4], al
        lgdt    [rip + gdt_register]
        mov     ax, TSS
        ltr     ax

        push    USER_DATA               // what IRETQ takes off the stack: SS,
        push    0x10000                 // RSP,
        push    2                       // RFLAGS: IOPL 0, and the bit that is always 1,
        push    USER_CODE               // CS
        push    offset ring3            // and RIP
        iretq

// From here on the CPU is in ring 3.
ring3:
        mov     esi, offset who
        call    print

        mov     ebp, 2                  // the sieve of Eratosthenes: strike out the multiples of
1:      cmp     byte ptr [SIEVE + rbp], 0
        jne     3f                      // every number that is not struck out itself
        mov     eax, ebp
        imul    eax, eax
        cmp     eax, LIMIT
        jae     4f
2:      mov     byte ptr [SIEVE + rax], 1
        add     eax, ebp
        cmp     eax, LIMIT
        jb      2b
3:      inc     ebp
        jmp     1b

4:      xor     eax, eax                // count what is left
        mov     ebp, 2
5:      cmp     byte ptr [SIEVE + rbp], 1
        adc     eax, 0                  // carry = 0 is below 1
        inc     ebp
        cmp     ebp, LIMIT
        jb      5b

        call    print_decimal
        mov     esi, offset what
        call    print
        mov     dx, PM1A_CONTROL
        mov     ax, PM1_SLP_EN
        out     dx, ax
6:      jmp     6b                      // HLT is for ring 0 alone

#include "print.inc"

who:    .asciz  "Ring 3 counts "
what:   .asciz  " primes below 1000000.\n"

        .balign 8
gdt:    .quad   0
        .quad   0x00AF9B000000FFFF      // 0x08: ring 0 code, 64-bit
        .quad   0x00CF93000000FFFF      // 0x10: ring 0 data
        .quad   0x00CFF3000000FFFF      // 0x18: ring 3 data
        .quad   0x00AFFB000000FFFF      // 0x20: ring 3 code, 64-bit
tss_descriptor:                 // 0x28: 16 bytes (SDM vol 3, "TSS Descriptor in 64-bit mode")
        .word   tss_end - tss - 1, 0
        .byte   0, 0x89, 0, 0           // present, an available 64-bit TSS
        .quad   0
gdt_register:
        .word   gdt_register - gdt - 1
        .quad   gdt

        .balign 8
tss:    .long   0                       // SDM vol 3, "64-Bit TSS Format"
        .quad   0xF000                  // RSP0: the stack, should an exception lead back to ring 0
        .skip   0x5A
        .word   0x68                    // where the bitmap begins
        .fill   COM1 / 8, 1, 0xFF       // a bit a port, 1 = forbidden
        .byte   ~(1 << (COM1 % 8)) & 0xFF
        .fill   PM1A_CONTROL / 8 - COM1 / 8 - 1, 1, 0xFF
        .byte   ~(3 << (PM1A_CONTROL % 8)) & 0xFF       // 16 bits are two ports
        .byte   0xFF                    // the CPU reads two bytes at a time: one more is needed
tss_end:
