// A guest that writes to exactly 10 pages between 0x100000 and 0x200000, and halts.
//
//   scripts/guest slots.S && kvmlite lab slots --guest slots.bin
//
// mode: long
// format: flat

#define FIRST 0x100000
#define PAGE 4096

        .intel_syntax noprefix
        .code64
        .globl  _start
_start:
        // Your loop goes here.

        hlt
