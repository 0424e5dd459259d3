// A guest that maps 0x123456789000 to its physical page 0x300000, and halts.
//
//   scripts/guest two-stage.S && kvmlite lab two-stage --guest two-stage.bin
//
// It starts with the first GiB mapped onto itself; the PML4 is where CR3 says. RAM is 8 MiB, zeroes
// from 0x100000 on: put new tables there.
//
// mode: long
// format: flat

        .intel_syntax noprefix
        .code64
        .globl  _start
_start:
        mov     rbx, cr3                // the PML4: entry n is at rbx + 8 * n

        // Your entries go here.

        hlt
