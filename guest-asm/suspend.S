// Suspends the machine to RAM, and wakes by the clock's alarm.
//
// ACPI calls it S3: memory stays, processors start anew. Before it sleeps a kernel writes to FACS, one
// of ACPI's tables, where it wants to go on in real mode: the waking vector (ACPI 6.5, 5.2.10). The
// alarm of the real-time clock is set to every second, and RTC_EN of PM1 lets it wake the machine.
//
// mode: protected
// format: elf32
// expect: "Going to sleep.\nAwake.\n"
// status: 0

#include "ports.inc"

#define FIRMWARE 0xE0000                // where ACPI's tables are
#define FACS_SIGNATURE 0x53434146       // "FACS"
#define WAKING_VECTOR 12                // its offset in FACS
#define RESUME 0x8000                   // where the machine goes on: below 1 MiB

#define ALARM_SECONDS 0x01              // registers of the clock
#define ALARM_MINUTES 0x03
#define ALARM_HOURS 0x05
#define REGISTER_B 0x0B
#define REGISTER_C 0x0C
#define DONT_CARE 0xC0                  // an alarm at every value
#define AIE 0x20                        // the alarm is enabled

        .intel_syntax noprefix
        .code32
        .globl  _start
_start:
        cld
        mov     esi, offset resume      // real mode can't reach this image: copy what goes on there
        mov     edi, RESUME
        mov     ecx, offset RESUME_SIZE
        rep movsb

        mov     ebx, FIRMWARE           // FACS is on a boundary of 64 bytes
1:      cmp     dword ptr [ebx], FACS_SIGNATURE
        je      2f
        add     ebx, 64
        jmp     1b
2:      mov     dword ptr [ebx + WAKING_VECTOR], RESUME

        mov     esi, offset going
        call    print

        mov     dx, PM1A_ENABLE
        mov     ax, PM1_RTC_EN
        out     dx, ax
        mov     ah, DONT_CARE
        mov     bl, ALARM_SECONDS
        call    set_clock
        mov     bl, ALARM_MINUTES
        call    set_clock
        mov     bl, ALARM_HOURS
        call    set_clock
        mov     bl, REGISTER_C          // a read takes back what has come before
        mov     al, bl
        out     CMOS_INDEX, al
        in      al, CMOS_DATA
        mov     bl, REGISTER_B
        mov     al, bl
        out     CMOS_INDEX, al
        in      al, CMOS_DATA
        or      al, AIE
        mov     ah, al
        call    set_clock

        mov     dx, PM1A_CONTROL
        mov     ax, PM1_SUSPEND | PM1_SLP_EN
        out     dx, ax
        mov     al, 1                   // not reached
        out     EXIT_PORT, al
        hlt

set_clock:                              // BL: which register, AH: its value
        mov     al, bl
        out     CMOS_INDEX, al
        mov     al, ah
        out     CMOS_DATA, al
        ret

        .code16
resume: mov     ax, cs                  // CS is RESUME >> 4, IP is 0
        mov     ds, ax
        mov     si, offset AWAKE
        mov     dx, COM1
1:      lodsb
        test    al, al
        jz      2f
        out     dx, al
        jmp     1b
2:      mov     dx, PM1A_STATUS         // WAK_STS says that it was a sleep, not a reset
        in      ax, dx
        test    ah, 0x80
        jz      3f
        mov     dx, PM1A_CONTROL
        mov     ax, PM1_SLP_EN
        out     dx, ax
3:      mov     al, 1
        out     EXIT_PORT, al
        hlt
        .equ    AWAKE, . - resume
        .asciz  "Awake.\n"
        .equ    RESUME_SIZE, . - resume

        .code32
#include "print.inc"

going:  .asciz  "Going to sleep.\n"
