// Lists the functions on the PCI bus, by configuration mechanism #1.
//
// A function's address and a register's go to port 0xCF8, the register's value is at port 0xCFC.
// Where no function is, all bits read one. Function 0 says in its header type whether its device
// has more of them.
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
1:      xor     ecx, ecx                // register 0: vendor and device
        call    read_config
        cmp     ax, 0xFFFF
        je      2f
        call    print_function
        mov     ecx, 0x0C               // register 0x0E, header type: bit 7
        call    read_config
        test    eax, 0x800000
        jnz     3f                      // several functions: the next one
        test    edi, 7
        jnz     3f                      // this isn't the first: the device has several
2:      test    edi, 7                  // without function 0 there is no device
        jnz     3f
        add     edi, 8
        jmp     4f
3:      inc     edi
4:      cmp     edi, 32 * 8
        jb      1b
        cli
        hlt

// EDI = device << 3 | function, ECX = register -> EAX. Changes DX.
read_config:
        mov     eax, edi
        shl     eax, 8
        or      eax, ecx
        or      eax, 1 << 31
        mov     dx, PCI_ADDRESS
        out     dx, eax
        mov     dx, PCI_DATA
        in      eax, dx
        ret

#include "print.inc"
#include "pci.inc"
