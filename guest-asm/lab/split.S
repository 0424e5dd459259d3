// The front end of a para-virtual disk, step by step, for the experiment `split`.
//
// A ring of four descriptors, of which requests use the first three, and a doorbell: the lab has told the
// back end where they are. The guest stops at port STEP after each thing that it does, and at port WAIT
// until the back end has answered. It runs in ring 3, with all ports open to it.
//
// lab: split
// mode: long
// format: flat

#include "probe.inc"

#define END 0xF0
#define WAIT 0xF1
#define STEP 0xF2

#define DESCRIPTORS 0x300000
#define AVAILABLE 0x301000
#define USED 0x302000
#define HEADER 0x303000                 // type, 0, sector
#define STATUS 0x303010
#define DATA 0x304000                   // up to eight sectors
#define DOORBELL 0x30000000

#define NEXT 1
#define WRITE 2
#define READ_SECTOR 0
#define WRITE_SECTOR 1

// Descriptor n of the table.
        .macro  descriptor n, address, length, flags, next
        mov     edi, DESCRIPTORS + \n * 16
        mov     qword ptr [rdi], \address
        mov     dword ptr [rdi + 8], \length
        mov     word ptr [rdi + 12], \flags
        mov     word ptr [rdi + 14], \next
        .endm

// A request of three descriptors.
        .macro  describe type, sector, data_flags
        mov     edi, HEADER
        mov     qword ptr [rdi], \type
        mov     qword ptr [rdi + 8], \sector
        mov     byte ptr [rdi + 16], 0xFF
        descriptor 0, HEADER, 16, NEXT, 1
        descriptor 1, DATA, 0, \data_flags, 2
        mov     [rdi + 8], r12d
        descriptor 2, STATUS, 1, WRITE, 0
        .endm

// The request that begins at descriptor 0 in the next slot of the available ring.
        .macro  offer
        mov     edi, AVAILABLE
        movzx   eax, word ptr [rdi + 2]
        mov     ecx, eax
        and     ecx, 3
        mov     word ptr [rdi + 4 + rcx * 2], 0
        inc     eax
        mfence                          // the slot first, then the index
        mov     [rdi + 2], ax
        mfence
        .endm

        .macro  ring_doorbell
        mov     edi, DOORBELL
        mov     dword ptr [rdi], 0
        .endm

        .intel_syntax noprefix
        .code64
        probes_start

        // R12 = the bytes of a request's data.
        probe   "split"
        describe READ_SECTOR, 0, NEXT | WRITE   // both sides are there when this is answered
        offer
        ring_doorbell
        out     WAIT, al
        out     STEP, al                // 0: at rest

        describe READ_SECTOR, 5, NEXT | WRITE
        out     STEP, al                // 1: described
        offer
        out     STEP, al                // 2: available
        ring_doorbell
        out     STEP, al                // 3: rung
        out     WAIT, al
        out     STEP, al                // 4: answered

        describe WRITE_SECTOR, 6, NEXT
        out     STEP, al                // 5: the next one described
        offer
        out     STEP, al                // 6: available
        ring_doorbell
        out     STEP, al                // 7: rung
        out     WAIT, al
        out     STEP, al                // 8: answered
        out     END, al
        ud2
        probes_end
