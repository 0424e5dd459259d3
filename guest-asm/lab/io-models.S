// Drivers of different devices for the same bytes, for the experiment `io-models`.
//
// Each routine moves R12 pieces in batches of RBX and ends at port END. The code runs in ring 3, with all
// ports open to it, so it runs on the processor on every host. Where a driver would sleep until the
// device's interrupt, it writes to port WAIT, and the lab sleeps for it: one exit.
//
// lab: io-models
// mode: long
// format: flat

#include "probe.inc"
#include "ports.inc"

#define END 0xF0
#define WAIT 0xF1
#define IDE_MASTER 0xC000               // bus master: command, status and, at 4, the table's address
#define VIRTIO 0x30000000               // registers, at an address without memory

#define DATA 0x200000                   // 256 sectors
#define QUEUE_SIZE 256
#define DESCRIPTORS 0x300000
#define AVAILABLE 0x301000
#define USED 0x302000
#define REGIONS 0x303000                // the bus master's table
#define TABLES 0x310000                 // for each request an indirect table of three descriptors
#define TABLE_SIZE 64
#define HEADERS 0x320000                // for each request its header and, at 16, its status
#define HEADER_SIZE 32

#define NEXT 1
#define WRITE 2
#define INDIRECT 4

        .intel_syntax noprefix
        .code64
        probes_start

// A piece is a byte; a batch goes by one instruction.
        probe   "uart"
        mov     esi, DATA
        mov     edx, COM1
1:      mov     ecx, ebx
        rep outsb
        sub     r12d, ebx
        jnz     1b
        jmp     end

// A piece is a sector; a batch is one command, with an interrupt for each sector.
        probe   "pio"
        mov     edi, DATA
        xor     r13d, r13d
1:      mov     al, 0x20                // READ SECTORS
        call    ide_command
        mov     r14d, ebx
2:      out     WAIT, al
        mov     edx, IDE_COMMAND
        in      al, dx                  // takes the interrupt back
        and     al, 0x89                // BSY, DRQ, ERR
        cmp     al, 8
        jne     bad
        mov     edx, IDE_DATA
        mov     ecx, 256
        rep insw
        dec     r14d
        jnz     2b
        add     r13d, ebx
        cmp     r13d, r12d
        jb      1b
        jmp     end

// A piece is a sector; a batch is one command, with one interrupt.
        probe   "dma"
        xor     r13d, r13d
1:      mov     eax, r13d
        shl     eax, 9
        add     eax, DATA
        mov     r8d, ebx
        shl     r8d, 9                  // bytes
        mov     edi, REGIONS            // a region may not cross 64 KiB: the last batch has two
        cmp     r8d, 0x10000
        jbe     2f
        mov     [rdi], eax
        mov     dword ptr [rdi + 4], 0  // 64 KiB
        add     eax, 0x10000
        sub     r8d, 0x10000
        add     edi, 8
2:      mov     [rdi], eax
        movzx   eax, r8w
        or      eax, 0x80000000         // the last
        mov     [rdi + 4], eax
        mov     edx, IDE_MASTER + 4
        mov     eax, REGIONS
        out     dx, eax
        mov     edx, IDE_MASTER + 2
        mov     al, 6                   // what was before: error and interrupt
        out     dx, al
        mov     al, 0xC8                // READ DMA
        call    ide_command
        mov     edx, IDE_MASTER
        mov     al, 9                   // to memory, start
        out     dx, al
        out     WAIT, al
        mov     edx, IDE_COMMAND
        in      al, dx
        test    al, 0x89
        jnz     bad
        mov     edx, IDE_MASTER
        mov     al, 8                   // stop
        out     dx, al
        mov     edx, IDE_MASTER + 2
        in      al, dx
        test    al, 3                   // error, or not at the table's end
        jnz     bad
        add     r13d, ebx
        cmp     r13d, r12d
        jb      1b
        jmp     end

// Command AL for RBX sectors (256 as 0) from R13 on.
ide_command:
        mov     r9d, eax
        mov     edx, IDE_DEVICE
        mov     al, 0xE0
        out     dx, al
        mov     edx, IDE_COUNT
        mov     al, bl
        out     dx, al
        inc     edx
        mov     al, r13b
        out     dx, al
        inc     edx
        mov     eax, r13d
        mov     al, ah
        out     dx, al
        inc     edx
        xor     al, al
        out     dx, al
        mov     edx, IDE_COMMAND
        mov     eax, r9d
        out     dx, al
        ret

// Finds the disk and gives it a queue (virtio 1.2, 3.1.1), then prepares its requests.
        probe   "virtio setup"
        mov     ebp, VIRTIO
        cmp     dword ptr [rbp], 0x74726976     // "virt"
        jne     bad
        mov     dword ptr [rbp + 0x70], 0
        mov     dword ptr [rbp + 0x70], 1       // ACKNOWLEDGE
        mov     dword ptr [rbp + 0x70], 3       // DRIVER
        mov     dword ptr [rbp + 0x24], 0       // features 0 to 31: indirect tables, event index
        mov     dword ptr [rbp + 0x20], 3 << 28
        mov     dword ptr [rbp + 0x24], 1       // features 32 to 63: VERSION_1
        mov     dword ptr [rbp + 0x20], 1
        mov     dword ptr [rbp + 0x70], 11      // FEATURES_OK
        mov     eax, [rbp + 0x70]
        test    eax, 8
        jz      bad
        mov     dword ptr [rbp + 0x30], 0       // queue 0
        mov     dword ptr [rbp + 0x38], QUEUE_SIZE
        mov     dword ptr [rbp + 0x80], DESCRIPTORS
        mov     dword ptr [rbp + 0x84], 0
        mov     dword ptr [rbp + 0x90], AVAILABLE
        mov     dword ptr [rbp + 0x94], 0
        mov     dword ptr [rbp + 0xA0], USED
        mov     dword ptr [rbp + 0xA4], 0
        mov     dword ptr [rbp + 0x44], 1
        mov     dword ptr [rbp + 0x70], 15      // DRIVER_OK
// Request n reads sector n to its place in DATA, and has descriptor n for ever.
        xor     ecx, ecx
1:      mov     edi, ecx
        shl     edi, 6
        add     edi, TABLES
        mov     esi, ecx
        shl     esi, 5
        add     esi, HEADERS
        mov     qword ptr [rsi], 0              // type: read
        mov     [rsi + 8], rcx                  // sector
        mov     [rdi], rsi
        mov     dword ptr [rdi + 8], 16
        mov     dword ptr [rdi + 12], NEXT | (1 << 16)
        mov     eax, ecx
        shl     eax, 9
        add     eax, DATA
        mov     [rdi + 16], rax
        mov     dword ptr [rdi + 24], 512
        mov     dword ptr [rdi + 28], (NEXT | WRITE) | (2 << 16)
        lea     rax, [rsi + 16]
        mov     [rdi + 32], rax
        mov     dword ptr [rdi + 40], 1
        mov     dword ptr [rdi + 44], WRITE
        mov     esi, ecx
        shl     esi, 4
        add     esi, DESCRIPTORS
        mov     [rsi], rdi
        mov     dword ptr [rsi + 8], 48
        mov     dword ptr [rsi + 12], INDIRECT
        inc     ecx
        cmp     ecx, QUEUE_SIZE
        jb      1b
        jmp     end

// A piece is a request for one sector; a batch goes by one doorbell and has one interrupt.
        probe   "virtio"
        mov     ebp, VIRTIO
        movzx   r14d, word ptr [AVAILABLE + 2]
        xor     r13d, r13d
1:      mov     ecx, ebx
2:      movzx   eax, r14b               // the slot, of 256
        mov     [AVAILABLE + 4 + rax * 2], r13w
        inc     r13d
        inc     r14d
        dec     ecx
        jnz     2b
        lea     eax, [r14 - 1]                  // tell me when this one is used
        mov     [AVAILABLE + 4 + QUEUE_SIZE * 2], ax
        mov     [AVAILABLE + 2], r14w
        mfence
        mov     dword ptr [rbp + 0x50], 0       // the doorbell, with the queue's number
        out     WAIT, al
        mov     dword ptr [rbp + 0x64], 1       // takes the interrupt back
        cmp     [USED + 2], r14w
        jne     bad
        cmp     r13d, r12d
        jb      1b
        jmp     end

// RAX = what became of RCX bytes at DATA.
        probe   "checksum"
        mov     esi, DATA
        shr     ecx, 3
        movabs  rdx, 0xCBF29CE484222325
        movabs  r8, 0x100000001B3
1:      xor     rdx, [rsi]
        imul    rdx, r8
        add     rsi, 8
        dec     ecx
        jnz     1b
        mov     rax, rdx
end:    out     END, al
        jmp     bad

bad:    ud2
        probes_end
