// A virtio disk by hand: type `w 7`, `r 7`, `f` to write, read and flush; `q` ends it.
//
// On the MMIO transport, one request at a time, without interrupts. An error's number is the status of
// the request: 1 is VIRTIO_BLK_S_IOERR. `x 0` writes at random for ever, which the tests interrupt with
// kill -9. include/disk.inc has the commands. The disk's contents are lost.
//
// mode: protected
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
#define SEGMENT 0x103020                // of a request without data: sector, how many, flags

#define DATA 0x104000                   // a block

#define NEXT 1
#define WRITE 2
#define TYPE_IN 0
#define TYPE_OUT 1
#define TYPE_FLUSH 4
#define TYPE_WRITE_ZEROES 13

        .intel_syntax noprefix
        .code32
        .globl  _start
_start:
        mov     ebp, VIRTIO_MMIO
        mov     eax, 2                          // a block device
        mov     ebx, 1 << 9 | 1 << 14           // FLUSH, WRITE_ZEROES if there
        call    virtio_begin
        jne     none
        xor     ecx, ecx
        mov     edx, QUEUE_SIZE
        mov     edi, DESCRIPTORS
        call    virtio_queue
        mov     dword ptr [ebp + 0x70], 15      // DRIVER_OK
        mov     eax, [ebp + 0x100]              // capacity in sectors
        shr     eax, 3
        jmp     disk

none:   mov     esi, offset nothing
        call    print
        mov     al, 1
        out     EXIT_PORT, al
        hlt

disk_read:
        mov     eax, TYPE_IN
        mov     edx, NEXT | WRITE | (2 << 16)
        jmp     with_data
disk_write:
        mov     eax, TYPE_OUT
        mov     edx, NEXT | (2 << 16)
with_data:
        mov     esi, DATA
        mov     ecx, 4096
        shl     ebx, 3
        jmp     request
disk_clear:
        mov     edi, SEGMENT
        shl     ebx, 3
        mov     [edi], ebx
        mov     dword ptr [edi + 8], 8
        mov     dword ptr [edi + 12], 1         // unmap
        mov     eax, TYPE_WRITE_ZEROES
        mov     esi, edi
        mov     ecx, 16
        mov     edx, NEXT | (2 << 16)
        xor     ebx, ebx
        jmp     request
disk_flush:
        mov     eax, TYPE_FLUSH
        xor     ebx, ebx

// Type EAX on sector EBX, with ECX bytes at ESI in a descriptor with flags and next EDX.
request:
        mov     edi, HEADER
        mov     [edi], eax
        mov     [edi + 8], ebx
        mov     byte ptr [edi + 16], 0xFF
        mov     edi, DESCRIPTORS                // address, length, flags, next
        mov     dword ptr [edi], HEADER
        mov     dword ptr [edi + 8], 16
        mov     dword ptr [edi + 12], NEXT | (1 << 16)
        mov     [edi + 16], esi
        mov     [edi + 24], ecx
        mov     [edi + 28], edx
        mov     dword ptr [edi + 32], STATUS
        mov     dword ptr [edi + 40], 1
        mov     dword ptr [edi + 44], WRITE
        cmp     eax, TYPE_FLUSH                 // has no data
        jne     1f
        mov     dword ptr [edi + 12], NEXT | (2 << 16)
1:      mov     edi, AVAILABLE                  // every slot of the ring says descriptor 0
        mov     eax, [edi]
        add     eax, 1 << 16                    // the index
        mov     [edi], eax
        shr     eax, 16
        mov     ebx, VIRTIO_MMIO
        mov     dword ptr [ebx + 0x50], 0       // the doorbell, with the queue's number
        mov     edi, USED
2:      mov     ecx, [ebx + 0x60]               // an exit: Bochs's VT-x leaves a guest by no other way
        cmp     ax, [edi + 2]
        jne     2b
        mov     edi, STATUS
        movzx   eax, byte ptr [edi]
        ret

#include "print.inc"
#include "virtio.inc"
#include "disk.inc"

nothing: .asciz "no virtio disk: give one with --disk FILE,bus=mmio\n"
