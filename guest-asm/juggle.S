// All at once: computes, sleeps from tick to tick, writes and reads two disks, and prints.
//
// In each of 32 rounds a sector of numbers goes to a virtio disk and, by DMA, to an IDE disk, comes back
// from both and is compared; then the guest sleeps until the timer's next tick and prints a dot. The tests
// move it from one machine to another while it juggles. What is on the disks will be lost; try:
// kvmlite --disk a.raw,bus=ide --disk b.raw,bus=mmio guest:juggle
//
// mode: real
// format: flat
// disk: 64K
// expect: "no virtio disk: give one with --disk FILE,bus=mmio\n"
// status: 3

#include "ports.inc"

#define QUEUE_SIZE 8
#define SEGMENT 0x10000                 // where this segment is: disks know addresses, not offsets
#define ROUNDS 32

#define NEXT 1
#define WRITE 2
#define TYPE_IN 0
#define TYPE_OUT 1

        .intel_syntax noprefix
        .code16
        .globl  _start
_start:
        cld
        call    open_memory
        mov     edi, VIRTIO_MMIO
        mov     esi, offset no_virtio
        cmp     dword ptr fs:[edi], 0x74726976  // "virt"
        jne     fail
        cmp     dword ptr fs:[edi + 8], 2       // a block device
        jne     fail
        call    virtio_init
        call    ide_init

        call    interrupts_init
        mov     cl, 0
        mov     ax, offset on_tick
        call    irq_handle
        push    ds
        pop     es
        mov     al, 0x34                // channel 0, low byte then high, mode 2: rate generator
        out     PIT_COMMAND, al
        mov     al, (PIT_HZ / 500) & 0xFF
        out     PIT_CHANNEL0, al
        mov     al, (PIT_HZ / 500) >> 8
        out     PIT_CHANNEL0, al
        sti

        xor     ebp, ebp                // the round
1:      mov     eax, [sum]              // computes
        mov     ecx, 500
2:      imul    eax, eax, 1664525
        add     eax, 1013904223
        dec     ecx
        jnz     2b
        mov     [sum], eax
        mov     di, offset data
        mov     cx, 128
3:      stosd
        add     eax, 0x01234567
        dec     cx
        jnz     3b

        mov     eax, TYPE_OUT           // writes
        mov     ecx, offset data
        mov     bx, NEXT
        call    virtio_request
        mov     word ptr [code], 0x00CA // WRITE DMA, from memory
        mov     ecx, offset data
        call    ide_request
        mov     eax, TYPE_IN            // reads back
        mov     ecx, offset back
        mov     bx, NEXT | WRITE
        call    virtio_request
        call    compare
        mov     word ptr [code], 0x08C8 // READ DMA, to memory
        mov     ecx, offset back
        call    ide_request
        call    compare

        mov     ah, [ticks]             // sleeps
4:      cli
        cmp     ah, [ticks]
        jne     5f
        sti                             // takes effect after the next instruction
        hlt
        jmp     4b
5:      sti
        mov     al, '.'                 // prints
        call    print_char
        inc     ebp
        cmp     ebp, ROUNDS
        jb      1b

        cli
        mov     esi, offset done
        call    print
        mov     eax, [sum]
        call    print_decimal
        mov     al, '\n'
        call    print_char
        mov     al, 0
        out     EXIT_PORT, al
        hlt

on_tick:
        push    ax
        inc     byte ptr cs:[ticks]
        mov     al, PIC_EOI
        out     PIC1_COMMAND, al
        pop     ax
        iret

// Whether BACK is DATA; BACK is spoiled.
compare:
        mov     si, offset data
        mov     di, offset back
        mov     cx, 128
        repe    cmpsd
        mov     esi, offset wrong
        jne     fail
        not     dword ptr [back]
        ret

fail:   call    print
        mov     al, 1
        out     EXIT_PORT, al
        hlt

// Gives FS all of the first 4 GiB: its limit stays after protected mode (Intel SDM vol 3, 10.9.1).
open_memory:
        mov     eax, offset gdt
        add     eax, SEGMENT
        mov     [gdt_register + 2], eax
        lgdt    [gdt_register]
        mov     eax, cr0
        or      al, 1
        mov     cr0, eax
        mov     bx, 8
        mov     fs, bx
        and     al, 0xFE
        mov     cr0, eax
        xor     bx, bx
        ret

// The driver's moves in order (virtio 1.2, 3.1.1). EDI = VIRTIO_MMIO.
virtio_init:
        mov     dword ptr fs:[edi + 0x70], 0
        mov     dword ptr fs:[edi + 0x70], 3    // ACKNOWLEDGE, DRIVER
        mov     dword ptr fs:[edi + 0x24], 1    // features 32 to 63: VERSION_1
        mov     dword ptr fs:[edi + 0x20], 1
        mov     dword ptr fs:[edi + 0x70], 11   // FEATURES_OK
        mov     dword ptr fs:[edi + 0x30], 0    // queue 0
        mov     dword ptr fs:[edi + 0x38], QUEUE_SIZE
        mov     eax, offset descriptors
        add     eax, SEGMENT
        mov     fs:[edi + 0x80], eax
        mov     eax, offset available
        add     eax, SEGMENT
        mov     fs:[edi + 0x90], eax
        mov     eax, offset used
        add     eax, SEGMENT
        mov     fs:[edi + 0xA0], eax
        mov     dword ptr fs:[edi + 0x44], 1
        mov     dword ptr fs:[edi + 0x70], 15   // DRIVER_OK
        ret

// Type EAX on sector EBP, the data at ECX with flags BX. Changes EAX, BX, ECX, EDI.
virtio_request:
        mov     [header], eax
        mov     [header + 8], ebp
        mov     byte ptr [status], 0xFF
        mov     eax, offset header
        add     eax, SEGMENT
        mov     [descriptors], eax              // address, length, flags, next
        mov     dword ptr [descriptors + 8], 16
        mov     dword ptr [descriptors + 12], NEXT | (1 << 16)
        add     ecx, SEGMENT
        mov     [descriptors + 16], ecx
        mov     dword ptr [descriptors + 24], 512
        mov     [descriptors + 28], bx
        mov     word ptr [descriptors + 30], 2
        mov     eax, offset status
        add     eax, SEGMENT
        mov     [descriptors + 32], eax
        mov     dword ptr [descriptors + 40], 1
        mov     dword ptr [descriptors + 44], WRITE
        mov     bx, [available + 2]             // every slot of the ring says descriptor 0
        inc     bx
        mov     [available + 2], bx
        mov     edi, VIRTIO_MMIO
        mov     dword ptr fs:[edi + 0x50], 0    // the doorbell, with the queue's number
1:      cmp     [used + 2], bx
        jne     1b
        mov     esi, offset virtio_failed
        cmp     byte ptr [status], 0
        jne     fail
        ret

// Finds the bus master's ports, and turns it on.
ide_init:
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
        mov     esi, offset no_ide
        jmp     fail
2:      mov     eax, ebx
        mov     al, 4                   // command: ports and bus mastering on
        call    config_read
        or      al, 5
        out     dx, eax
        mov     eax, ebx
        mov     al, 0x20                // BAR 4
        call    config_read
        and     ax, 0xFFFC
        mov     [master], ax
        mov     dx, IDE_CONTROL
        mov     al, 2                   // nIEN: no interrupts
        out     dx, al
        ret

// EAX: the configuration register at address EAX. DX is left at PCI_DATA.
config_read:
        mov     dx, PCI_ADDRESS
        out     dx, eax
        mov     dx, PCI_DATA
        in      eax, dx
        ret

// Moves sector EBP to or from ECX, as [code] says. Changes EAX, ECX, DX.
ide_request:
        add     ecx, SEGMENT
        mov     [region], ecx
        mov     dword ptr [region + 4], 0x80000000 + 512
        mov     dx, [master]
        add     dx, 4
        mov     eax, offset region
        add     eax, SEGMENT
        out     dx, eax
        sub     dx, 2
        mov     al, 6                   // what was before: error and interrupt
        out     dx, al
        mov     dx, [master]
        mov     al, [code + 1]
        out     dx, al
        mov     dx, IDE_DEVICE
        mov     al, 0xE0
        out     dx, al
        mov     dx, IDE_COUNT
        mov     al, 1
        out     dx, al
        inc     dx
        mov     eax, ebp
        out     dx, al
        inc     dx
        xor     al, al
        out     dx, al
        inc     dx
        out     dx, al
        mov     dx, IDE_COMMAND
        mov     al, [code]
        out     dx, al
        mov     dx, [master]
        mov     al, [code + 1]
        or      al, 1                   // start
        out     dx, al
        mov     dx, IDE_CONTROL
1:      in      al, dx
        test    al, 0x80                // BSY
        jnz     1b
        mov     esi, offset ide_failed
        test    al, 0x09                // DRQ or ERR: not all was moved
        jnz     fail
        mov     dx, [master]
        mov     al, [code + 1]
        out     dx, al                  // stop
        ret

#include "print.inc"
#include "interrupts.inc"

no_virtio:      .asciz  "no virtio disk: give one with --disk FILE,bus=mmio\n"
no_ide:         .asciz  "no IDE disk: give one with --disk FILE,bus=ide\n"
virtio_failed:  .asciz  "the virtio disk failed\n"
ide_failed:     .asciz  "the IDE disk failed\n"
wrong:          .asciz  "WRONG\n"
done:           .asciz  "\nall right, "

        .balign 8
gdt:    .quad   0, 0x00CF92000000FFFF   // 4 GiB of data
gdt_register:
        .word   15
        .long   0

        .bss
        .balign 16
descriptors: .skip 16 * QUEUE_SIZE
available: .skip 6 + 2 * QUEUE_SIZE
        .balign 4
used:   .skip   6 + 8 * QUEUE_SIZE
        .balign 16
header: .skip   16
region: .skip   8
data:   .skip   512
back:   .skip   512
sum:    .skip   4
master: .skip   2
code:   .skip   2                       // the command, and the bus master's direction
status: .skip   1
ticks:  .skip   1
