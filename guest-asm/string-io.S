// String I/O: REP OUTS and REP INS in every width and both directions.
//
// One instruction moves many items between memory and one port. The memory pointer advances, or
// with DF=1 goes back; the port does not move. A wide access to 8-bit devices is split into bytes
// at successive ports: a word from 0xE9 holds the debug console's 0xE9 and, from the empty port
// 0xEA, 0xFF; of a word written there only the low byte is shown.
//
// mode: protected
// format: flat
// expect: "outsb up\noutsb down\noutsw\noutsd\ninsb ok\ninsb down ok\ninsw ok\ninsd ok\n"
// status: 0

#include "ports.inc"

// Verdict: do the COUNT bytes at `buffer` equal those at `pattern`? And has EDI moved to `end`?
#define CHECK(name, pattern, count, end) \
        mov     ebp, edi;                \
        mov     ebx, offset name;        \
        mov     esi, offset pattern;     \
        mov     ecx, count;              \
        mov     edi, offset buffer;      \
        sub     ebp, offset end;         \
        call    check

        .intel_syntax noprefix
        .code32
        .globl  _start
_start:
        cld
        mov     esi, offset up
        mov     ecx, offset UP   // OFFSET: the number itself, not what is stored there
        mov     dx, COM1
        rep outsb

        std
        mov     esi, offset down_last
        mov     ecx, offset DOWN
        rep outsb
        cld

        mov     dx, DEBUG_CONSOLE
        mov     esi, offset words
        mov     ecx, offset WORDS
        rep outsw
        mov     esi, offset doubles
        mov     ecx, offset DOUBLES
        rep outsd

        call    clear
        mov     edi, offset buffer
        mov     ecx, 1500               // more than the 1024 bytes that KVM takes with one exit
        rep insb
        CHECK(insb, bytes_e9, 1500, buffer + 1500)

        call    clear
        mov     dx, DEBUG_CONSOLE
        std
        mov     edi, offset buffer + 15
        mov     ecx, 16
        rep insb
        cld
        CHECK(insb_down, bytes_e9, 16, buffer - 1)

        call    clear
        mov     dx, DEBUG_CONSOLE
        mov     edi, offset buffer
        mov     ecx, 4
        rep insw
        CHECK(insw, words_e9, 8, buffer + 8)

        call    clear
        mov     dx, DEBUG_CONSOLE
        mov     edi, offset buffer
        mov     ecx, 4
        rep insd
        CHECK(insd, doubles_e9, 16, buffer + 16)

        cli
        hlt

// Zeroes the buffer, so that one answer can't pass for the next.
clear:  xor     eax, eax
        mov     edi, offset buffer
        mov     ecx, 1500
        rep stosb
        ret

// Compares ECX bytes at ESI and EDI, wants EBP = 0 and prints EBX's text with the verdict.
check:  repe cmpsb
        mov     edi, offset wrong
        jne     1f
        test    ebp, ebp
        jnz     1f
        mov     edi, offset right
1:      mov     esi, ebx
        call    print
        mov     esi, edi
        jmp     print

#include "print.inc"

up:
        .ascii  "outsb up\n"
        .equ    UP, . - up
down:
        .ascii  "\nnwod bstu"
down_last:
        .ascii  "o"
        .equ    DOWN, . - down
words:  .ascii  "o.u.t.s.w.\n."
        .equ    WORDS, (. - words) / 2
doubles:
        .ascii  "o...u...t...s...d...\n..."
        .equ    DOUBLES, (. - doubles) / 4

insb:           .asciz  "insb"
insb_down: .asciz  "insb down"
insw:           .asciz  "insw"
insd:           .asciz  "insd"
right:          .asciz  " ok\n"
wrong:          .asciz  " WRONG\n"

bytes_e9:       .fill   1500, 1, 0xE9
words_e9:       .fill   4, 2, 0xFFE9
doubles_e9:     .fill   4, 4, 0xFFFFFFE9

        .bss
        .skip   16
buffer: .skip   1500
