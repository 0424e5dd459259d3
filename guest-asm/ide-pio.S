// An IDE disk by IN and OUT alone: IDENTIFY, then every sector written and read back by PIO.
//
// The first round moves a sector a block, the second eight by READ and WRITE MULTIPLE. Each sector
// is filled with words of a generator that goes on from sector to sector, so a sector in the wrong
// place shows. Everything is polled: no interrupts.
//
// mode: protected
// format: flat
// disk: 64K
// expect: "128 sectors\nby sector: ok\nby 8: ok\n"
// status: 0

#include "ports.inc"

        .intel_syntax noprefix
        .code32
        .globl  _start
_start:
        cld
        mov     dx, IDE_CONTROL
        mov     al, 2                   // nIEN: no interrupts
        out     dx, al
        mov     dx, IDE_COMMAND
        in      al, dx
        cmp     al, 0x7F                // a bus that floats: no drive
        jae     none
        mov     al, 0xE0
        call    select
        mov     al, 0xEC                // IDENTIFY DEVICE
        call    command
        mov     edi, offset buffer
        mov     ecx, 256
        mov     dx, IDE_DATA
        rep insw
        mov     eax, [buffer + 120]     // words 60 and 61: sectors
        mov     [sectors], eax
        call    print_decimal
        mov     esi, offset sectors_text
        call    print

        mov     byte ptr [block], 1
        mov     word ptr [codes], 0x2030        // READ SECTORS, WRITE SECTORS
        mov     esi, offset by_sector
        call    round
        mov     al, 8
        mov     [block], al
        mov     dx, IDE_COUNT
        out     dx, al
        mov     al, 0xC6                // SET MULTIPLE MODE
        call    command
        mov     word ptr [codes], 0xC4C5        // READ MULTIPLE, WRITE MULTIPLE
        mov     esi, offset by_8
        call    round
        cli
        hlt

// Writes all sectors and reads them back; prints ESI's text with the verdict.
round:  push    esi
        rol     dword ptr [seed], 7     // another pattern than the last round's
        mov     eax, [seed]
        mov     [next], eax
        xor     ebx, ebx                // the sector
1:      mov     al, [codes]
        call    start
        movzx   ecx, byte ptr [block]
        shl     ecx, 7                  // double words
        push    ecx
        mov     edi, offset buffer
2:      call    generate
        stosd
        dec     ecx
        jnz     2b
        pop     ecx
        mov     esi, offset buffer
        mov     dx, IDE_DATA
        rep outsd
        call    wait
        movzx   eax, byte ptr [block]
        add     ebx, eax
        cmp     ebx, [sectors]
        jb      1b

        mov     eax, [seed]
        mov     [next], eax
        xor     ebx, ebx
3:      mov     al, [codes + 1]
        call    start
        movzx   ecx, byte ptr [block]
        shl     ecx, 8                  // words
        push    ecx
        mov     edi, offset buffer
        mov     dx, IDE_DATA
        rep insw
        pop     ecx
        shr     ecx, 1
        mov     esi, offset buffer
4:      call    generate
        cmp     eax, [esi]
        jne     bad
        add     esi, 4
        dec     ecx
        jnz     4b
        movzx   eax, byte ptr [block]
        add     ebx, eax
        cmp     ebx, [sectors]
        jb      3b
        pop     esi
        call    print
        mov     esi, offset right
        jmp     print

// EAX: the generator's next number. Changes EDX.
generate:
        mov     eax, 1664525
        mul     dword ptr [next]
        add     eax, 1013904223
        mov     [next], eax
        ret

// Starts command AL for a block at sector EBX, and waits until data is to be moved.
start:  push    eax
        mov     al, 0xE0
        call    select
        mov     al, [block]
        mov     dx, IDE_COUNT
        out     dx, al
        mov     eax, ebx
        inc     edx                     // LBA low
        out     dx, al
        shr     eax, 8
        inc     edx
        out     dx, al
        shr     eax, 8
        inc     edx
        out     dx, al
        pop     eax

// Gives command AL, and waits.
command:
        mov     dx, IDE_COMMAND
        out     dx, al

// Waits until BSY is clear. An error ends the guest.
wait:   mov     dx, IDE_CONTROL
1:      in      al, dx
        test    al, 0x80
        jnz     1b
        mov     dx, IDE_COMMAND
        in      al, dx
        test    al, 1
        jnz     bad
        ret

// Selects by AL.
select: mov     dx, IDE_DEVICE
        out     dx, al
        ret

none:   mov     esi, offset none_text
        jmp     fail
bad:    mov     esi, offset bad_text
fail:   call    print
        mov     al, 1
        out     EXIT_PORT, al

#include "print.inc"

sectors_text:   .asciz  " sectors\n"
by_sector:      .asciz  "by sector"
by_8:           .asciz  "by 8"
right:          .asciz  ": ok\n"
none_text:      .asciz  "no IDE disk: give one with --disk FILE,bus=ide; what is on it will be lost\n"
bad_text:       .asciz  "the disk failed\n"
        .balign 4
seed:           .long   0x12345678
codes:          .word   0               // WRITE in the low byte, READ in the high one

        .bss
        .balign 4
next:   .skip   4
sectors: .skip  4
block:  .skip   4
buffer: .skip   4096
