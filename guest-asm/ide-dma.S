// An IDE disk by DMA: finds the bus master through PCI, writes all sectors and reads them back.
//
// The controller is the PCI function of class 01.01, the bus master's ports are in its BAR 4. One
// command moves 32 KiB between the disk and regions of odd sizes in memory, whose table (PRD table)
// the bus master reads. Everything is polled: no interrupts.
//
// mode: protected
// format: flat
// disk: 64K
// expect: "bus master found\nwritten and read: ok\n"
// status: 0

#include "ports.inc"

#define SECTORS 64               // of one command
#define BYTES (SECTORS * 512)
#define COMMANDS 2

        .intel_syntax noprefix
        .code32
        .globl  _start
_start:
        cld
        mov     ebx, 0x80000000         // bus 0, device 0, function 0
1:      mov     eax, ebx
        mov     al, 8                   // class code and revision
        call    config_read
        shr     eax, 16
        cmp     eax, 0x0101             // mass storage, IDE
        je      2f
        add     ebx, 0x100
        cmp     ebx, 0x80010000
        jb      1b
        mov     esi, offset none_text
        jmp     fail
2:      mov     eax, ebx
        mov     al, 4                   // command: ports and bus mastering on
        call    config_read
        or      al, 5
        out     dx, eax
        mov     eax, ebx
        mov     al, 0x20                // BAR 4
        call    config_read
        and     eax, 0xFFFC
        mov     [master], eax
        mov     esi, offset found
        call    print

        mov     dx, IDE_CONTROL
        mov     al, 2                   // nIEN: no interrupts
        out     dx, al
        mov     edi, offset source      // what is written
        mov     ecx, COMMANDS * BYTES / 4
        mov     eax, 0x12345678
3:      imul    eax, eax, 1664525
        add     eax, 1013904223
        stosd
        dec     ecx
        jnz     3b

        mov     byte ptr [code], 0xCA   // WRITE DMA
        mov     byte ptr [direction], 0
        mov     eax, offset source
        call    move
        mov     byte ptr [code], 0xC8   // READ DMA
        mov     byte ptr [direction], 8
        mov     eax, offset target
        call    move
        mov     esi, offset source
        mov     edi, offset target
        mov     ecx, COMMANDS * BYTES / 4
        repe cmpsd
        jne     bad
        mov     esi, offset right
        call    print
        cli
        hlt

// Moves all sectors to or from the memory at EAX.
move:   xor     ebx, ebx                // the sector
1:      push    eax
        call    table
        mov     edx, [master]
        add     edx, 4
        mov     eax, offset regions
        out     dx, eax
        sub     edx, 2
        mov     al, 6                   // what was before: error and interrupt
        out     dx, al
        sub     edx, 2
        mov     al, [direction]
        out     dx, al
        mov     dx, IDE_DEVICE
        mov     al, 0xE0
        out     dx, al
        mov     dx, IDE_COUNT
        mov     al, SECTORS
        out     dx, al
        inc     edx
        mov     al, bl
        out     dx, al
        xor     al, al
        inc     edx
        out     dx, al
        inc     edx
        out     dx, al
        mov     dx, IDE_COMMAND
        mov     al, [code]
        out     dx, al
        mov     edx, [master]
        mov     al, [direction]
        or      al, 1                   // start
        out     dx, al
        mov     dx, IDE_CONTROL
2:      in      al, dx
        test    al, 0x80                // BSY
        jnz     2b
        test    al, 0x09                // DRQ or ERR: not all was moved
        jnz     bad
        mov     dx, IDE_COMMAND
        in      al, dx
        mov     edx, [master]
        mov     al, [direction]
        out     dx, al                  // stop
        add     edx, 2
        in      al, dx
        test    al, 3                   // error, or not at the table's end
        jnz     bad
        pop     eax
        add     eax, BYTES
        add     ebx, SECTORS
        cmp     ebx, SECTORS * COMMANDS
        jb      1b
        ret

// The table for BYTES at EAX: regions of 2, 1000 and the other bytes.
table:  mov     edi, offset regions
        stosd
        add     eax, 2
        mov     dword ptr [edi], 2
        add     edi, 4
        stosd
        add     eax, 1000
        mov     dword ptr [edi], 1000
        add     edi, 4
        stosd
        mov     dword ptr [edi], 0x80000000 + BYTES - 1002
        ret

// EAX: the configuration register at address EAX. DX is left at PCI_DATA.
config_read:
        mov     dx, PCI_ADDRESS
        out     dx, eax
        mov     dx, PCI_DATA
        in      eax, dx
        ret

bad:    mov     esi, offset bad_text
fail:   call    print
        mov     al, 1
        out     EXIT_PORT, al

#include "print.inc"

found:          .asciz  "bus master found\n"
right:          .asciz  "written and read: ok\n"
none_text:      .asciz  "no IDE controller: give a disk with --disk FILE,bus=ide; what is on it will be lost\n"
bad_text:       .asciz  "the disk failed\n"

        .bss
        .balign 65536                   // a table or region may not cross 64 KiB
source: .skip   COMMANDS * BYTES
target: .skip   COMMANDS * BYTES
regions: .skip  24
master: .skip   4
code:   .skip   1
direction: .skip 1
