// The clock chip's three interrupts: five periodic ones, the end of an update, the alarm.
//
// All come as IRQ 8, on the second interrupt controller. Register B enables them, register C tells
// which it was; until C is read there is no further one.
//
// mode: real
// format: flat
// expect: ".....ua\n"
// status: 0

#include "ports.inc"

#define CLOCK_VECTOR 0x28               // IRQ 8, as interrupts_init sets the controllers up
#define RTC_A 0x0A
#define RTC_B 0x0B
#define RTC_C 0x0C
#define HZ_64 0x2A                      // the usual divider, and rate 10
#define HOURS_24 1 << 1
#define UPDATE_ENDED 1 << 4             // in B to enable, in C to tell
#define ALARM 1 << 5
#define PERIODIC 1 << 6
#define ANY 0xC0                        // in an alarm register: matches always

        .intel_syntax noprefix
        .code16
        .globl  _start
_start:
        call    interrupts_init
        xor     ax, ax
        mov     es, ax
        mov     word ptr es:[CLOCK_VECTOR * 4], offset on_clock
        mov     word ptr es:[CLOCK_VECTOR * 4 + 2], cs
        mov     al, 0xFF & ~(1 << 2)    // the slave's input
        out     PIC1_DATA, al
        mov     al, 0xFF & ~(1 << 0)    // and of that the clock's
        out     PIC2_DATA, al

        mov     ax, HZ_64 << 8 | RTC_A
        call    write_cmos
        mov     cx, 5
1:      mov     ah, PERIODIC
        mov     bl, '.'
        call    await
        loop    1b
        mov     ah, UPDATE_ENDED
        mov     bl, 'u'
        call    await
        mov     ax, ANY << 8 | 0x01     // any second, minute and hour
        call    write_cmos
        mov     ax, ANY << 8 | 0x03
        call    write_cmos
        mov     ax, ANY << 8 | 0x05
        call    write_cmos
        mov     ah, ALARM
        mov     bl, 'a'
        call    await
        mov     al, '\n'
        call    print_char
        mov     dx, PM1A_CONTROL
        mov     ax, PM1_SLP_EN
        out     dx, ax
        hlt

// Enables the interrupts of AH, sleeps until one has come, and prints BL. Changes AX, DX.
await:
        mov     bh, ah
        mov     byte ptr [causes], 0
        or      ah, HOURS_24
        mov     al, RTC_B
        call    write_cmos
1:      cli
        test    [causes], bh
        jnz     2f
        sti                             // takes effect after the next instruction
        hlt
        jmp     1b
2:      mov     al, bl
        jmp     print_char

// AL = register, AH = its new value. An interrupt between the two writes would change the index.
write_cmos:
        cli
        out     CMOS_INDEX, al
        mov     al, ah
        out     CMOS_DATA, al
        ret

on_clock:
        push    ax
        mov     al, RTC_C
        out     CMOS_INDEX, al
        in      al, CMOS_DATA           // ends the interrupt
        or      [causes], al
        mov     al, PIC_EOI
        out     PIC2_COMMAND, al
        out     PIC1_COMMAND, al
        pop     ax
        iret

#include "print.inc"
#include "interrupts.inc"

        .bss
causes:  .skip   1
