// Guests that a student's hypervisor runs, for the experiment `build`.
//
// The image begins with a table of where each guest begins and ends. The lab cuts one out, puts numbers
// into it at its offset 8 and gives it to a hypervisor, which loads it at 0x1000 and starts it there in
// real mode with segments of base 0. A guest ends with HLT while no interrupt waits.
//
// lab: build
// mode: real
// format: flat

#define SERIAL 0x3F8                    // a byte written is printed, a byte read is one of the input
#define RAISE 0x80                      // a byte written is the vector of an interrupt that is raised
#define ADDER_SEGMENT 0xD000            // write at 0: is added; read at 4: the sum
#define BUFFER 0x3000

// Where a guest has its numbers, and handlers of interrupts, once it is at 0x1000.
#define NUMBERS 0x1008
#define HANDLER 0x1100
#define OTHER_HANDLER 0x1120

        .intel_syntax noprefix
        .code16
        .globl  _start
_start: .word   out_guest, in_guest
        .word   in_guest, string_guest
        .word   string_guest, memory_guest
        .word   memory_guest, mmio_guest
        .word   mmio_guest, interrupt_guest
        .word   interrupt_guest, window_guest
        .word   window_guest, end

// Prints the text, which is hidden under a key.
        .balign 4
out_guest:
        jmp     2f
        .org    out_guest + 8
        .byte   0                       // key
        .byte   0                       // count
        .skip   64                      // text
2:      mov     si, NUMBERS + 2
        mov     cl, [NUMBERS]
        movzx   bx, byte ptr [NUMBERS + 1]
        xor     di, di
        xor     ah, ah
        mov     dx, SERIAL
3:      lodsb
        xor     al, cl
        out     dx, al
        rol     di, 3
        add     di, ax
        dec     bx
        jnz     3b
        mov     ax, di
        hlt

// Reads bytes and prints each under a key.
        .balign 4
in_guest:
        jmp     2f
        .org    in_guest + 8
        .byte   0                       // key
        .byte   0                       // count
2:      mov     cl, [NUMBERS]
        movzx   bx, byte ptr [NUMBERS + 1]
        xor     di, di
        xor     ah, ah
        mov     dx, SERIAL
3:      in      al, dx
        xor     al, cl
        out     dx, al
        rol     di, 3
        add     di, ax
        dec     bx
        jnz     3b
        mov     al, 10
        out     dx, al
        mov     ax, di
        hlt

// The same by string instructions, of which one exit may be about many bytes.
        .balign 4
string_guest:
        jmp     2f
        .org    string_guest + 8
        .byte   0
        .byte   0                       // count
2:      cld
        movzx   bx, byte ptr [NUMBERS + 1]
        mov     di, BUFFER
        mov     cx, bx
        mov     dx, SERIAL
        rep insb
        mov     si, BUFFER
        mov     cx, bx
        rep outsb
        mov     al, 10
        out     dx, al
        mov     si, BUFFER
        xor     di, di
        xor     ah, ah
3:      lodsb
        rol     di, 3
        add     di, ax
        dec     bx
        jnz     3b
        mov     ax, di
        hlt

// Writes words all over 640 KiB, then reads them back.
        .balign 4
memory_guest:
        jmp     2f
        .org    memory_guest + 8
        .word   0                       // seed
        .word   0                       // count
2:      xor     bp, bp                  // first round: write
3:      mov     bx, [NUMBERS]
        mov     cx, [NUMBERS + 2]
        mov     dx, 0x1000              // the segment
        xor     di, di
4:      imul    bx, bx, 25173           // the next number without a pattern
        add     bx, 13849
        mov     es, dx
        mov     si, bx
        and     si, 0xFFFE
        test    bp, bp
        jnz     5f
        mov     es:[si], bx
        jmp     6f
5:      rol     di, 1
        add     di, es:[si]
6:      add     dx, 0x1000
        cmp     dx, 0xA000
        jb      7f
        mov     dx, 0x1000
7:      dec     cx
        jnz     4b
        inc     bp
        cmp     bp, 2
        jb      3b
        mov     ax, di
        hlt

// Has a device add numbers of 4, 2 and 1 bytes, and reads the sum by as many.
        .balign 4
mmio_guest:
        jmp     2f
        .org    mmio_guest + 8
        .long   0                       // number
        .word   0                       // count
2:      mov     ax, ADDER_SEGMENT
        mov     fs, ax
        mov     cx, [NUMBERS + 4]
        mov     ebx, [NUMBERS]
3:      mov     fs:[0], ebx
        mov     fs:[0], bx
        mov     fs:[0], bl
        imul    ebx, ebx, 1664525
        add     ebx, 1013904223
        dec     cx
        jnz     3b
        mov     eax, fs:[4]
        mov     ebx, eax
        shr     ebx, 16
        xor     ax, bx
        mov     bx, fs:[4]
        rol     ax, 5
        add     ax, bx
        xor     bx, bx
        mov     bl, fs:[4]
        rol     ax, 5
        add     ax, bx
        hlt

// Raises an interrupt again and again while it is ready for it.
        .balign 4
interrupt_guest:
        jmp     2f
        .org    interrupt_guest + 8
        .byte   0                       // vector
        .byte   0                       // count
        .byte   0                       // mark
        .byte   0                       // sum
2:      mov     sp, 0x1000
        movzx   bx, byte ptr [NUMBERS]
        shl     bx, 2
        mov     word ptr [bx], HANDLER
        mov     word ptr [bx + 2], 0
        mov     cl, [NUMBERS + 1]
        mov     dx, SERIAL
        sti
3:      mov     al, [NUMBERS]
        out     RAISE, al
        mov     al, '.'
        out     dx, al
        dec     cl
        jnz     3b
        mov     al, 10
        out     dx, al
        movzx   ax, byte ptr [NUMBERS + 3]
        hlt
        .org    interrupt_guest + 0x100
        push    ax
        mov     al, [NUMBERS + 2]
        add     [NUMBERS + 3], al
        out     dx, al
        inc     byte ptr [NUMBERS + 2]
        pop     ax
        iret

// Raises two while it is not ready, later one and sleeps.
        .balign 4
window_guest:
        jmp     2f
        .org    window_guest + 8
        .byte   0                       // first
        .byte   0                       // second
        .byte   0                       // mark
        .byte   0                       // sum
2:      mov     sp, 0x1000
        movzx   bx, byte ptr [NUMBERS]
        shl     bx, 2
        mov     word ptr [bx], HANDLER
        mov     word ptr [bx + 2], 0
        movzx   bx, byte ptr [NUMBERS + 1]
        shl     bx, 2
        mov     word ptr [bx], OTHER_HANDLER
        mov     word ptr [bx + 2], 0
        mov     dx, SERIAL
        cli
        mov     al, [NUMBERS]
        out     RAISE, al
        mov     al, [NUMBERS + 1]
        out     RAISE, al
        mov     al, '<'                 // both wait
        out     dx, al
        sti
        xor     cx, cx
3:      dec     cx                      // both come meanwhile, if anything asks for it
        jnz     3b
        mov     al, '>'
        out     dx, al
        cli
        mov     al, [NUMBERS]
        out     RAISE, al
        sti
        hlt                             // woken by it
        mov     al, '!'
        out     dx, al
        mov     al, 10
        out     dx, al
        movzx   ax, byte ptr [NUMBERS + 3]
        hlt
        .org    window_guest + 0x100
        push    ax
        mov     al, [NUMBERS + 2]
        jmp     6f
        .org    window_guest + 0x120
        push    ax
        mov     al, [NUMBERS + 2]
        xor     al, 0x20                // the other case
6:      out     dx, al
        rol     byte ptr [NUMBERS + 3], 1
        add     [NUMBERS + 3], al
        pop     ax
        iret
end:
