// An IDE disk by hand: type `w 7`, `r 7`, `f` to write, read and flush; `q` ends it.
//
// The primary master by bus-master DMA, polled. An error's number is 256 * status + error: 20740 is
// 0x51 0x04, ERR with ABRT. `x 0` writes at random for ever, which the tests interrupt with kill -9.
// include/disk.inc has the commands. The disk's contents are lost.
//
// mode: protected
// format: flat
// expect: "no IDE disk: give one with --disk FILE,bus=ide\n"
// status: 3

#include "ports.inc"

#define IDENTITY 0x100000               // what IDENTIFY DEVICE says: 512 bytes
#define REGIONS 0x100200                // the bus master's table: one region
#define DATA 0x104000                   // a block
#define SECTORS 8

        .intel_syntax noprefix
        .code32
        .globl  _start
_start:
        cld
        mov     edx, 8                  // class code and revision
        call    config_read
        shr     eax, 16
        cmp     eax, 0x0101             // mass storage, IDE
        jne     none
        mov     edx, 4                  // command: ports and bus mastering on
        call    config_read
        or      al, 5
        out     dx, eax
        mov     edx, 0x20               // BAR 4
        call    config_read
        and     eax, 0xFFFC
        mov     [master], eax

        mov     dx, IDE_CONTROL
        mov     al, 2                   // nIEN: no interrupts
        out     dx, al
        mov     dx, IDE_DEVICE
        mov     al, 0xE0                // the master, by LBA
        out     dx, al
        mov     dx, IDE_COMMAND
        mov     al, 0xEC                // IDENTIFY DEVICE
        out     dx, al
        call    wait
        test    al, 0x08                // DRQ
        jz      none
        mov     edi, IDENTITY
        mov     ecx, 256
        mov     dx, IDE_DATA
        rep     insw
        mov     edi, IDENTITY
        mov     eax, [edi + 120]        // words 60 and 61: sectors
        shr     eax, 3
        jmp     disk

none:   mov     esi, offset nothing
        call    print
        mov     al, 1
        out     EXIT_PORT, al
        hlt

disk_read:
        mov     eax, 0x08C8             // the bus master's direction, READ DMA
        jmp     dma
disk_clear:
        mov     edi, DATA
        xor     eax, eax
        mov     ecx, 1024
        rep     stosd
disk_write:
        mov     eax, 0x00CA             // WRITE DMA

// The 4 KiB at DATA and the sectors of block EBX, by command AL, the bus master's direction AH.
dma:    mov     [code], eax
        mov     edi, REGIONS
        mov     dword ptr [edi], DATA
        mov     dword ptr [edi + 4], 0x80000000 + SECTORS * 512
        mov     edx, [master]
        add     edx, 4
        mov     eax, REGIONS
        out     dx, eax
        sub     edx, 2
        mov     al, 6                   // what was before: error and interrupt
        out     dx, al
        sub     edx, 2
        mov     al, [code + 1]
        out     dx, al
        shl     ebx, 3
        mov     dx, IDE_COUNT
        mov     al, SECTORS
        out     dx, al
        mov     eax, ebx
        inc     edx
        out     dx, al
        shr     eax, 8
        inc     edx
        out     dx, al
        shr     eax, 8
        inc     edx
        out     dx, al
        shr     eax, 8
        or      al, 0xE0
        inc     edx
        out     dx, al
        inc     edx
        mov     al, [code]
        out     dx, al
        mov     edx, [master]
        mov     al, [code + 1]
        or      al, 1                   // start
        out     dx, al
        call    wait
        mov     edx, [master]
        mov     al, [code + 1]
        out     dx, al                  // stop
        jmp     result
disk_flush:
        mov     dx, IDE_COMMAND
        mov     al, 0xE7                // FLUSH CACHE
        out     dx, al
        call    wait

// EAX = 0, or the status and the error if there is one.
result: mov     dx, IDE_COMMAND
        in      al, dx
        test    al, 0x29                // DF, DRQ or ERR
        jz      1f
        movzx   ecx, al
        shl     ecx, 8
        mov     dx, IDE_DATA + 1        // the error
        in      al, dx
        movzx   eax, al
        or      eax, ecx
        ret
1:      xor     eax, eax
        ret

// AL = the status once BSY is gone.
wait:   mov     dx, IDE_CONTROL
2:      in      al, dx
        test    al, 0x80
        jnz     2b
        ret

// EAX: the register DL of PCI function 1.1, beside the ISA bridge. DX is left at PCI_DATA.
config_read:
        mov     eax, 0x80000900
        mov     al, dl
        mov     dx, PCI_ADDRESS
        out     dx, eax
        mov     dx, PCI_DATA
        in      eax, dx
        ret

#include "print.inc"
#include "disk.inc"

nothing: .asciz "no IDE disk: give one with --disk FILE,bus=ide\n"

        .bss
        .balign 4
master: .skip   4
code:   .skip   4
