// Drivers of one disk behind different devices, for the experiment `stack`.
//
// RBX = the first sector, R12 = how many, up to 256. What is read comes to DATA, and each routine ends at
// port END. The code runs in ring 3, with all ports open to it; where a driver would sleep until the
// device's interrupt, it writes to port WAIT.
//
// lab: stack
// mode: long
// format: flat

#include "probe.inc"
#include "ports.inc"

#define END 0xF0
#define WAIT 0xF1
#define DISK_MMIO 0x30000000
#define WINDOW 0x31000000               // where ranges of PCI functions are put, 1 MiB for each
#define VIRTIO_DISK 0x10421AF4

#define DATA 0x200000
#define QUEUE_SIZE 16
#define DESCRIPTORS 0x300000
#define AVAILABLE 0x301000
#define USED 0x302000
#define HEADER 0x303000                 // type, 0, sector
#define STATUS 0x303010
#define FOUND 0x304000                  // the disk's configuration address
#define STRUCTURES 0x304008             // where each virtio structure is, by its type from 0 on
#define DOORBELL 0x304040
#define IS_MMIO 0x304048

#define NEXT 1
#define WRITE 2
#define VERSION_1 1                     // of features 32 to 63

        .intel_syntax noprefix
        .code64
        probes_start

// IDENTIFY DEVICE, by PIO.
        probe   "ide identify"
        mov     al, 0xEC
        mov     r12d, 1
        jmp     ide_command

// READ SECTORS, by PIO: an interrupt for each sector.
        probe   "ide read"
        mov     al, 0x20
ide_command:
        mov     r9d, eax
        mov     edx, IDE_DEVICE
        mov     al, 0xE0
        out     dx, al
        mov     edx, IDE_COUNT
        mov     al, r12b
        out     dx, al
        inc     edx
        mov     eax, ebx
        out     dx, al
        inc     edx
        mov     al, ah
        out     dx, al
        inc     edx
        xor     al, al
        out     dx, al
        mov     edx, IDE_COMMAND
        mov     eax, r9d
        out     dx, al
        mov     edi, DATA
1:      out     WAIT, al
        mov     edx, IDE_COMMAND
        in      al, dx                  // takes the interrupt back
        and     al, 0x89                // BSY, DRQ, ERR
        cmp     al, 8
        jne     bad
        mov     edx, IDE_DATA
        mov     ecx, 256
        rep insw
        dec     r12d
        jnz     1b
        jmp     end

// Finds all functions of bus 0, gives the virtio disk's ranges addresses, and learns from its
// capabilities where its registers are (PCI 3.0, 3.2.2.3.2 and 6; virtio 1.2, 4.1.4).
        probe   "pci scan"
        mov     r13d, 1 << 31           // 00:00.0
        xor     ebp, ebp
1:      mov     eax, r13d
        call    pci_read
        cmp     eax, -1
        je      2f
        mov     r8d, eax
        lea     eax, [r13 + 0x08]       // class
        call    pci_read
        lea     eax, [r13 + 0x0C]       // header type
        call    pci_read
        cmp     r8d, VIRTIO_DISK
        cmove   ebp, r13d
2:      add     r13d, 1 << 11
        cmp     r13d, (1 << 31) + (1 << 16)
        jb      1b
        test    ebp, ebp
        jz      bad
        mov     [FOUND], rbp

        lea     r13d, [rbp + 0x10]      // range 0
        mov     r14d, WINDOW
3:      mov     eax, r13d
        mov     r8d, -1
        call    pci_write
        mov     eax, r13d
        call    pci_read                // the bits that stayed zero are its size
        test    eax, eax
        jz      4f
        mov     r9d, eax
        mov     eax, r13d
        mov     r8d, r14d
        call    pci_write
        add     r14d, 1 << 20
        and     r9d, 6
        cmp     r9d, 4                  // of 64 bits: the next register is its upper half
        jne     4f
        add     r13d, 4
        mov     eax, r13d
        xor     r8d, r8d
        call    pci_write
4:      add     r13d, 4
        lea     eax, [rbp + 0x28]
        cmp     r13d, eax
        jb      3b
        lea     eax, [rbp + 0x04]
        mov     r8d, 6                  // memory ranges, bus master
        call    pci_write

        lea     eax, [rbp + 0x34]
        call    pci_read
        movzx   r13d, al
5:      test    r13d, r13d
        jz      end
        lea     eax, [rbp + r13]
        call    pci_read
        mov     r14d, eax
        cmp     al, 9                   // vendor-specific: one of virtio's
        jne     6f
        lea     eax, [rbp + r13 + 4]    // which range
        call    pci_read
        and     eax, 7
        lea     eax, [rbp + 0x10 + rax * 4]
        call    pci_read
        and     eax, ~15
        mov     r15d, eax
        lea     eax, [rbp + r13 + 8]    // offset in it
        call    pci_read
        add     r15d, eax
        mov     eax, r14d
        shr     eax, 24                 // type
        and     eax, 7
        cmp     eax, 5                  // 5 is a window for firmware
        jae     6f
        mov     [STRUCTURES + rax * 8], r15
6:      shr     r14d, 8
        movzx   r13d, r14b
        jmp     5b

// EAX = what the configuration register at EAX holds.
pci_read:
        mov     edx, PCI_ADDRESS
        out     dx, eax
        mov     edx, PCI_DATA
        in      eax, dx
        ret

// R8D to the configuration register at EAX.
pci_write:
        mov     edx, PCI_ADDRESS
        out     dx, eax
        mov     edx, PCI_DATA
        mov     eax, r8d
        out     dx, eax
        ret

// The same driver's part for each transport: reset, features, one queue (virtio 1.2, 3.1.1).
        probe   "mmio setup"
        mov     ebp, DISK_MMIO
        mov     dword ptr [rbp + 0x70], 0
        mov     dword ptr [rbp + 0x70], 1       // ACKNOWLEDGE
        mov     dword ptr [rbp + 0x70], 3       // DRIVER
        mov     dword ptr [rbp + 0x24], 1
        mov     dword ptr [rbp + 0x20], VERSION_1
        mov     dword ptr [rbp + 0x70], 11      // FEATURES_OK
        mov     eax, [rbp + 0x70]
        test    eax, 8
        jz      bad
        mov     dword ptr [rbp + 0x30], 0
        mov     dword ptr [rbp + 0x38], QUEUE_SIZE
        mov     dword ptr [rbp + 0x80], DESCRIPTORS
        mov     dword ptr [rbp + 0x90], AVAILABLE
        mov     dword ptr [rbp + 0xA0], USED
        mov     dword ptr [rbp + 0x44], 1
        mov     dword ptr [rbp + 0x70], 15      // DRIVER_OK
        lea     eax, [rbp + 0x50]
        mov     [DOORBELL], rax
        mov     qword ptr [IS_MMIO], 1
        jmp     end

        probe   "pci setup"
        mov     rbp, [STRUCTURES + 1 * 8]
        mov     byte ptr [rbp + 0x14], 0
        mov     byte ptr [rbp + 0x14], 1        // ACKNOWLEDGE
        mov     byte ptr [rbp + 0x14], 3        // DRIVER
        mov     dword ptr [rbp + 0x08], 1
        mov     dword ptr [rbp + 0x0C], VERSION_1
        mov     byte ptr [rbp + 0x14], 11       // FEATURES_OK
        mov     al, [rbp + 0x14]
        test    al, 8
        jz      bad
        mov     word ptr [rbp + 0x16], 0
        mov     word ptr [rbp + 0x18], QUEUE_SIZE
        mov     dword ptr [rbp + 0x20], DESCRIPTORS
        mov     dword ptr [rbp + 0x28], AVAILABLE
        mov     dword ptr [rbp + 0x30], USED
        mov     word ptr [rbp + 0x1C], 1
        mov     byte ptr [rbp + 0x14], 15       // DRIVER_OK
        mov     rax, [STRUCTURES + 2 * 8]
        mov     [DOORBELL], rax
        mov     qword ptr [IS_MMIO], 0
        jmp     end

// 20 bytes of the device's serial number.
        probe   "virtio identify"
        mov     r8d, 8                  // GET_ID
        mov     r12d, 20
        jmp     request

// One request, whatever the transport.
        probe   "virtio read"
        xor     r8d, r8d                // read
        shl     r12d, 9
request:
        mov     edi, HEADER
        mov     [rdi], r8
        mov     [rdi + 8], rbx
        mov     byte ptr [rdi + 16], 0xFF
        mov     esi, DESCRIPTORS
        mov     [rsi], rdi
        mov     dword ptr [rsi + 8], 16
        mov     dword ptr [rsi + 12], NEXT | (1 << 16)
        mov     qword ptr [rsi + 16], DATA
        mov     [rsi + 24], r12d
        mov     dword ptr [rsi + 28], (NEXT | WRITE) | (2 << 16)
        mov     qword ptr [rsi + 32], STATUS
        mov     dword ptr [rsi + 40], 1
        mov     dword ptr [rsi + 44], WRITE
        movzx   ecx, word ptr [AVAILABLE + 2]
        mov     eax, ecx
        and     eax, QUEUE_SIZE - 1
        mov     word ptr [AVAILABLE + 4 + rax * 2], 0
        inc     ecx
        mfence
        mov     [AVAILABLE + 2], cx
        mfence
        mov     rdx, [DOORBELL]
        xor     eax, eax
        cmp     qword ptr [IS_MMIO], 0
        jz      1f
        mov     [rdx], eax
        out     WAIT, al
        mov     dword ptr [DISK_MMIO + 0x64], 1       // takes the interrupt back
        jmp     2f
1:      mov     [rdx], ax
        out     WAIT, al
        mov     rdx, [STRUCTURES + 3 * 8]
        mov     al, [rdx]                               // the same
2:      cmp     [USED + 2], cx
        jne     bad
        cmp     byte ptr [STATUS], 0
        jne     bad
        jmp     end

// RAX = what becomes of RCX bytes at DATA.
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
bad:    ud2
        probes_end
