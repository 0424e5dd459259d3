// Tries instructions in RISC-V's user and supervisor mode, for the experiment `risc`.
//
// Machine mode is the hypervisor: it enters each with MRET and sees whether it comes back by the ECALL
// behind the instruction or by a trap. A line for each goes to the UART: what it is, the mode, what became
// of it, and a number: mcause of a trap, or A0.
//
// lab: risc
// mode: riscv64
// format: flat

#define UART 0x10000000                 // QEMU's machine `virt`
#define FINISHER 0x100000
#define FINISH 0x5555
#define CALL_FROM_USER 8                // mcause
#define CALL_FROM_SUPERVISOR 9
#define STATUS_MPP 0x1800
#define STATUS_SPP 0x100
#define STATUS_SIE 0x02
#define STATUS_SPIE 0x20
#define SOFTWARE_INTERRUPT 0x02         // in mie, mip and mideleg

// A row of the table, 64 bytes: where its code is, at 8 what kind it is, at 24 its name.
        .macro  row kind, name, code:vararg
        .section .text.probes, "ax"
        .balign 4
8:      \code
        ecall                           // came to its end
        .section .rodata, "a"
9:      .quad   8b
        .asciz  "\kind"
        .org    9b + 24
        .asciz  "\name"
        .org    9b + 64
        .text
        .endm

        .option norvc
        .option norelax
        .text
        .globl  _start
_start: la      t0, trap
        csrw    mtvec, t0
        li      t0, -1                  // all memory for all modes
        csrw    pmpaddr0, t0
        li      t0, 0x1F
        csrw    pmpcfg0, t0
        csrw    mcounteren, zero        // no counter below machine mode
        li      t0, SOFTWARE_INTERRUPT  // waits for supervisor mode, which has it off, so that WFI
        csrw    mideleg, t0             // goes on at once
        csrw    mip, t0

        la      s0, table
next:   ld      s1, 0(s0)
        beqz    s1, finish
        li      s2, 0                   // the mode: 0 user, 1 supervisor
1:      call    try
        call    tell
        addi    s2, s2, 1
        li      t0, 2
        blt     s2, t0, 1b
        addi    s0, s0, 64
        j       next

finish: la      a0, end_word
        call    print
        li      t0, FINISHER
        li      t1, FINISH
        sw      t1, 0(t0)
2:      j       2b

// Enters the code at S1 in mode S2; S3 = mcause, S4 = A0.
try:    mv      s5, ra
        csrw    mepc, s1
        li      t0, STATUS_MPP
        csrc    mstatus, t0
        slli    t1, s2, 11
        csrs    mstatus, t1
        // User mode can't turn supervisor mode's interrupts off.
        slli    t1, s2, 1
        csrw    mie, t1
        li      t0, STATUS_SIE | STATUS_SPIE
        csrc    mstatus, t0
        // SRET ends at the ECALL behind it, in supervisor mode.
        addi    t0, s1, 4
        csrw    sepc, t0
        li      t0, STATUS_SPP
        csrs    mstatus, t0
        li      a0, 0
        mret
        .balign 4
trap:   csrr    s3, mcause
        mv      s4, a0
        jr      s5

// Prints a line about row S0.
tell:   mv      s6, ra
        addi    a0, s0, 8
        call    print
        li      a0, '\t'
        call    put
        addi    a0, s0, 24
        call    print
        la      a0, user_word
        beqz    s2, 1f
        la      a0, supervisor_word
1:      call    print
        la      a0, runs_word
        mv      s7, s4
        addi    t0, s3, -CALL_FROM_USER
        li      t1, 2                   // by an ECALL of either mode
        bltu    t0, t1, 2f
        la      a0, traps_word
        mv      s7, s3
2:      call    print
        li      s8, 60
3:      srl     t0, s7, s8
        andi    t0, t0, 15
        la      a0, digits
        add     a0, a0, t0
        lbu     a0, 0(a0)
        call    put
        addi    s8, s8, -4
        bgez    s8, 3b
        li      a0, '\n'
        call    put
        jr      s6

// Prints the text at A0.
print:  mv      t3, a0
        mv      t4, ra
1:      lbu     a0, 0(t3)
        beqz    a0, 2f
        call    put
        addi    t3, t3, 1
        j       1b
2:      jr      t4

put:    li      t0, UART
1:      lbu     t1, 5(t0)               // LSR: room for a byte
        andi    t1, t1, 0x20
        beqz    t1, 1b
        sb      a0, 0(t0)
        ret

        .section .rodata, "a"
digits: .ascii  "0123456789abcdef"
user_word: .asciz "\tuser\t"
supervisor_word: .asciz "\tsupervisor\t"
runs_word: .asciz "runs\t"
traps_word: .asciz "traps\t"
end_word: .asciz "end\n"
        .balign 64
table:
        row     sensitive, "csrr sstatus", csrr a0, sstatus
        row     sensitive, "csrw sstatus", csrw sstatus, zero
        row     sensitive, "csrw sie", csrw sie, zero
        row     sensitive, "csrr sip", csrr a0, sip
        row     sensitive, "csrw stvec", csrw stvec, zero
        row     sensitive, "csrr sscratch", csrr a0, sscratch
        row     sensitive, "csrw sepc", csrw sepc, zero
        row     sensitive, "csrr scause", csrr a0, scause
        row     sensitive, "csrr stval", csrr a0, stval
        row     sensitive, "csrr satp", csrr a0, satp
        row     sensitive, "csrw satp", csrw satp, zero
        row     sensitive, "sfence.vma", sfence.vma
        row     sensitive, "sret", sret
        row     sensitive, "wfi", wfi
        row     other, "add", addi a0, a0, 5
        row     other, "rdcycle", rdcycle a0
        .section .rodata, "a"
        .quad   0
