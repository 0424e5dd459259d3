// Lists the functions on the PCI bus, by the configuration space in memory (ECAM).
//
// Each function has 4 KiB of registers there, one behind the other. Where no function is, all bits
// read one.
//
// mode: protected
// format: flat
// expect: "00:00.0 1b36:0008\n"
// status: 0

#include "ports.inc"

        .intel_syntax noprefix
        .code32
        .globl  _start
_start:
        xor     edi, edi                // device << 3 | function
1:      mov     eax, edi
        shl     eax, 12
        mov     eax, [eax + PCI_ECAM]   // register 0: vendor and device
        cmp     ax, 0xFFFF
        je      2f
        call    print_function
2:      inc     edi
        cmp     edi, 32 * 8
        jb      1b
        cli
        hlt

#include "print.inc"
#include "pci.inc"
