// A guest that makes 100 OUTs to port 0x80 and 10 reads of MMIO, and halts.
//
//   scripts/guest exits.S && kvmlite lab exits --guest exits.bin
//
// mode: long
// format: flat

#define MMIO 0x30000000                 // nothing is behind this address: each access is an exit

        .intel_syntax noprefix
        .code64
        .globl  _start
_start:
        // Your loops go here.

        hlt
