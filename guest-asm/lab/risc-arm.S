// Tries instructions in ARMv7's user and supervisor mode, for the experiment `risc`.
//
// The code in supervisor mode is the hypervisor: it enters each by an exception return and sees whether it
// comes back by the SVC behind the instruction or by an exception. A line for each goes to the UART: what
// it is, the mode, what became of it, and a number: of the vector, or R0.
//
// lab: risc
// mode: armv7
// format: flat

#define UART 0x09000000                 // QEMU's machine `virt`: a PL011
#define SYSTEM_OFF 0x84000008           // PSCI
#define USER 0x10                       // modes in the CPSR
#define SUPERVISOR 0x13

// A row of the table, 64 bytes: where its code is, at 4 what kind it is, at 16 its name. The code may use
// R0 to R3; R8 is SCTLR, R9 the vectors' address.
        .macro  row kind, name, code:vararg
        .section .text.probes, "ax"
        .balign 4
8:      \code
        svc     #0                      // came to its end
        .ltorg
        .section .rodata, "a"
9:      .word   8b
        .asciz  "\kind"
        .org    9b + 16
        .asciz  "\name"
        .org    9b + 64
        .text
        .endm

// What the CPSR is after the instruction.
        .macro  change code:vararg
        \code
        mrs     r0, cpsr
        .endm

        .syntax unified
        .arm
        .text
        .globl  _start
_start: b       main
        .balign 32
vectors:
        b       other
        b       undefined
        b       call
        b       other
        b       other
        nop
        b       other
        b       other

main:   cps     #SUPERVISOR
        adr     r9, vectors
        mcr     p15, 0, r9, c12, c0, 0  // VBAR
        mrc     p15, 0, r8, c1, c0, 0   // SCTLR
        ldr     r4, =table
next:   ldr     r5, [r4]
        cmp     r5, #0
        beq     finish
        mov     r6, #USER
1:      bl      try
        bl      tell
        cmp     r6, #SUPERVISOR
        mov     r6, #SUPERVISOR
        bne     1b
        add     r4, r4, #64
        b       next

finish: ldr     r0, =end_word
        bl      print
        ldr     r0, =SYSTEM_OFF
        .arch_extension virt
        hvc     #0
2:      b       2b

// Enters the code at R5 in mode R6 with interrupts on; R7 = 0 if it ended, else the vector; R10 = R0.
try:    mov     r11, lr
        msr     spsr_cxsf, r6
        mov     r0, #0
        mov     lr, r5
        movs    pc, lr
call:   mov     r7, #0
        b       back
undefined:
        mov     r7, #1
        b       back
other:  mov     r7, #2
back:   mov     r10, r0
        cpsid   if, #SUPERVISOR
        bx      r11

// Prints a line about row R4.
tell:   mov     r11, lr
        add     r0, r4, #4
        bl      print
        ldr     r0, =tab_word
        bl      print
        add     r0, r4, #16
        bl      print
        cmp     r6, #USER
        ldreq   r0, =user_word
        ldrne   r0, =supervisor_word
        bl      print
        cmp     r7, #0
        ldreq   r0, =runs_word
        ldrne   r0, =traps_word
        movne   r10, r7
        bl      print
        ldr     r1, =digits
        mov     r2, #28
3:      lsr     r0, r10, r2
        and     r0, r0, #15
        ldrb    r0, [r1, r0]
        ldr     r3, =UART
        str     r0, [r3]
        subs    r2, r2, #4
        bpl     3b
        mov     r0, #'\n'
        str     r0, [r3]
        bx      r11

// Prints the text at R0.
print:  ldr     r3, =UART
1:      ldrb    r2, [r0], #1
        cmp     r2, #0
        bxeq    lr
        str     r2, [r3]
        b       1b
        .ltorg

        .section .rodata, "a"
digits: .ascii  "0123456789abcdef"
tab_word: .asciz "\t"
user_word: .asciz "\tuser\t"
supervisor_word: .asciz "\tsupervisor\t"
runs_word: .asciz "runs\t"
traps_word: .asciz "traps\t"
end_word: .asciz "end\n"
        .balign 64
table:
        row     sensitive, "CPS", change cpsid i, #SUPERVISOR
        row     sensitive, "MRS CPSR", mrs r0, cpsr
        row     sensitive, "MSR CPSR_c", change msr cpsr_c, #0xD3
        row     sensitive, "MRC SCTLR", mrc p15, 0, r0, c1, c0, 0
        row     sensitive, "MCR SCTLR", mcr p15, 0, r8, c1, c0, 0
        row     sensitive, "MRC TTBR0", mrc p15, 0, r0, c2, c0, 0
        row     sensitive, "MCR TTBR0", mcr p15, 0, r0, c2, c0, 0
        row     sensitive, "MRC DACR", mrc p15, 0, r0, c3, c0, 0
        row     sensitive, "MCR DACR", mcr p15, 0, r0, c3, c0, 0
        row     sensitive, "MRC DFSR", mrc p15, 0, r0, c5, c0, 0
        row     sensitive, "MRC VBAR", mrc p15, 0, r0, c12, c0, 0
        row     sensitive, "MCR VBAR", mcr p15, 0, r9, c12, c0, 0
        row     sensitive, "MCR TLBIALL", mcr p15, 0, r0, c8, c7, 0
        row     sensitive, "MRC MIDR", mrc p15, 0, r0, c0, c0, 0
        row     other, "ADD", add r0, r0, #5
        row     other, "MRC TPIDRURO", mrc p15, 0, r0, c13, c0, 3
        .section .rodata, "a"
        .word   0
