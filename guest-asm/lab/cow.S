// Writes some sectors of an IDE disk, and looks at one that it did not write, for the experiment `cow`.
//
// The lab puts into the image what to write and where. The first byte of the sector that is only read
// goes to the debug console; then the guest halts.
//
// lab: cow
// mode: protected
// format: flat

#include "ports.inc"

#define COMMAND_READ 0x20
#define COMMAND_WRITE 0x30
#define COMMAND_FLUSH 0xE7

        .intel_syntax noprefix
        .code32
        .globl  _start
_start: jmp     1f
        .balign 16
fill:   .long   0                       // offset 16: the bytes to write
looked: .long   0                       // offset 20: the sector to look at
count:  .long   0                       // offset 24: how many sectors to write
list:   .skip   4 * 32                  // offset 28: their numbers

1:      cld
        mov     dx, IDE_CONTROL
        mov     al, 2                   // no interrupts
        out     dx, al
        xor     ebp, ebp
2:      cmp     ebp, [count]
        jae     3f
        mov     ebx, [list + ebp * 4]
        mov     al, COMMAND_WRITE
        call    start
        mov     eax, [fill]
        mov     edi, offset buffer
        mov     ecx, 128
        rep stosd
        mov     esi, offset buffer
        mov     ecx, 256
        mov     dx, IDE_DATA
        rep outsw
        call    wait
        inc     ebp
        jmp     2b

3:      mov     ebx, [looked]
        mov     al, COMMAND_READ
        call    start
        mov     edi, offset buffer
        mov     ecx, 256
        mov     dx, IDE_DATA
        rep insw
        mov     al, [buffer]
        out     DEBUG_CONSOLE, al

        mov     al, COMMAND_FLUSH
        call    command
        cli
        hlt

// Starts command AL for sector EBX, and waits until data is to be moved.
start:  push    eax
        mov     dx, IDE_DEVICE
        mov     al, 0xE0                // LBA, the first drive
        out     dx, al
        mov     dx, IDE_COUNT
        mov     al, 1
        out     dx, al
        mov     eax, ebx
        inc     edx                     // LBA low, then middle and high
        out     dx, al
        shr     eax, 8
        inc     edx
        out     dx, al
        shr     eax, 8
        inc     edx
        out     dx, al
        pop     eax
command:
        mov     dx, IDE_COMMAND
        out     dx, al
wait:   mov     dx, IDE_CONTROL
1:      in      al, dx
        test    al, 0x80                // BSY
        jnz     1b
        mov     dx, IDE_COMMAND
        in      al, dx
        test    al, 1                   // ERR
        jnz     bad
        ret
bad:    mov     al, 1
        out     EXIT_PORT, al

        .bss
        .balign 4
buffer: .skip   512
