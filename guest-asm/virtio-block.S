// Drives a virtio disk on the MMIO transport: writes every sector, reads every sector back.
//
// One queue of 8 descriptors at fixed addresses; a request is three of them: header, data, status.
// It rings the doorbell and looks at the used ring until the index moves: no interrupts. Now and then
// it asks whether the device needs a reset, since then the index never moves. Without a disk it
// says so; try: kvmlite disk create d.raw --size 64K; kvmlite --disk d.raw,bus=mmio guest:virtio-block
//
// mode: long
// format: flat
// expect: "no virtio disk: give one with --disk FILE,bus=mmio\n"
// status: 3

#include "ports.inc"

#define QUEUE_SIZE 8
#define DESCRIPTORS 0x100000            // three parts of the ring, each on a page of its own
#define AVAILABLE 0x101000
#define USED 0x102000
#define HEADER 0x103000                 // type, 0, sector
#define STATUS 0x103010
#define DATA 0x104000                   // one sector

#define NEXT 1
#define WRITE 2
#define TYPE_IN 0
#define TYPE_OUT 1
#define TYPE_FLUSH 4

        .intel_syntax noprefix
        .code64
        .globl  _start
_start:
        mov     ebp, VIRTIO_MMIO
        mov     eax, 2                          // a block device
        mov     ebx, 1 << 9                     // FLUSH
        call    virtio_begin
        jne     none
        xor     ecx, ecx
        mov     edx, QUEUE_SIZE
        mov     edi, DESCRIPTORS
        call    virtio_queue
        mov     dword ptr [rbp + 0x70], 15      // DRIVER_OK

        mov     r12d, [rbp + 0x100]             // capacity in sectors
        mov     esi, offset sectors
        call    print
        mov     eax, r12d
        call    print_decimal
        mov     al, '\n'
        call    print_char

// Writes: each 8 bytes of sector n are its number and where they are in it.
        xor     r13d, r13d
1:      cmp     r13d, r12d
        je      2f
        mov     edi, DATA
        xor     ecx, ecx
3:      mov     eax, ecx
        shl     eax, 16
        or      eax, r13d
        mov     [rdi + rcx * 8], eax
        not     eax
        mov     [rdi + rcx * 8 + 4], eax
        inc     ecx
        cmp     ecx, 64
        jne     3b
        mov     r14d, TYPE_OUT
        mov     r15d, NEXT
        call    request
        inc     r13d
        jmp     1b
2:      mov     r14d, TYPE_FLUSH
        call    request
        mov     esi, offset written
        call    print

// Reads them back from the last to the first.
        mov     r13d, r12d
4:      test    r13d, r13d
        jz      6f
        dec     r13d
        mov     edi, DATA
        mov     qword ptr [rdi], 0
        mov     r14d, TYPE_IN
        mov     r15d, NEXT | WRITE
        call    request
        mov     edi, DATA
        xor     ecx, ecx
5:      mov     eax, ecx
        shl     eax, 16
        or      eax, r13d
        cmp     [rdi + rcx * 8], eax
        jne     failed
        not     eax
        cmp     [rdi + rcx * 8 + 4], eax
        jne     failed
        inc     ecx
        cmp     ecx, 64
        jne     5b
        jmp     4b
6:      mov     esi, offset right
        call    print
        mov     al, 0
        out     EXIT_PORT, al
        hlt

none:   mov     esi, offset nothing
        call    print
        mov     al, 1
        out     EXIT_PORT, al
        hlt

failed: mov     esi, offset wrong
        call    print
        mov     al, 2
        out     EXIT_PORT, al
        hlt

// request: type R14 on sector R13, the data's descriptor with flags R15. Changes EAX, EBX, ECX, EDI.
request:
        mov     edi, HEADER
        mov     [rdi], r14d
        mov     dword ptr [rdi + 4], 0
        mov     [rdi + 8], r13
        mov     byte ptr [rdi + 16], 0xFF
        mov     edi, DESCRIPTORS                // address, length, flags, next
        mov     qword ptr [rdi], HEADER
        mov     dword ptr [rdi + 8], 16
        mov     dword ptr [rdi + 12], NEXT | (1 << 16)
        mov     qword ptr [rdi + 16], DATA
        mov     dword ptr [rdi + 24], 512
        mov     [rdi + 28], r15w
        mov     word ptr [rdi + 30], 2
        mov     qword ptr [rdi + 32], STATUS
        mov     dword ptr [rdi + 40], 1
        mov     dword ptr [rdi + 44], WRITE
        cmp     r14d, TYPE_FLUSH                // has no data
        jne     1f
        mov     dword ptr [rdi + 12], NEXT | (2 << 16)
1:      mov     edi, AVAILABLE                  // every slot of the ring says descriptor 0
        mov     bx, [rdi + 2]
        inc     bx
        mov     [rdi + 2], bx
        mov     dword ptr [rbp + 0x50], 0       // the doorbell, with the queue's number
        mov     edi, USED
        xor     ecx, ecx
2:      mov     ax, [rdi + 2]
        cmp     ax, bx
        je      3f
        inc     ecx
        test    ecx, 0x3FFFF                    // each look at the device is an exit
        jnz     2b
        mov     eax, [rbp + 0x70]
        test    eax, 64                         // DEVICE_NEEDS_RESET
        jz      2b
        mov     esi, offset lost
        call    print
        mov     al, 3
        out     EXIT_PORT, al
        hlt
3:
        mov     edi, STATUS
        cmp     byte ptr [rdi], 0
        jne     failed
        ret

#include "print.inc"
#include "virtio.inc"

sectors: .asciz "sectors: "
written: .asciz "written\n"
lost:   .asciz  "the disk is lost\n"
right:  .asciz  "read back, all right\n"
wrong:  .asciz  "WRONG\n"
nothing: .asciz "no virtio disk: give one with --disk FILE,bus=mmio\n"
