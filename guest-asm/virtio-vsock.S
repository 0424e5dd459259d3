// Connects to a program on the host by virtio-vsock, says ping, and prints what is answered.
//
// Two queues of one descriptor each, on the MMIO transport: packets that come, packets that go; their
// headers are virtio 1.2, 5.10.6. It asks for port 5000 of the host (CID 2) and rings the doorbell, then
// looks at the used ring until its index moves: no interrupts. Without a device it says so; try, with a
// program that listens at v.sock_5000: kvmlite --vsock cid=3,socket=v.sock --virtio-bus mmio
// guest:virtio-vsock
//
// mode: long
// format: flat
// expect: "no virtio-vsock: give one with --vsock cid=3,socket=PATH --virtio-bus mmio\n"
// status: 3

#include "ports.inc"

#define COMES 0x100000                  // queue 0: descriptors, then the two rings, a page each
#define GOES 0x104000                   // queue 1
#define AVAILABLE 0x1000
#define USED 0x2000
#define RECEIVED 0x110000               // a packet that has come, its data behind its header
#define SENT 0x112000

#define HEADER 44                       // bytes: source, destination, length, type, operation, ...
#define LENGTH 24
#define OPERATION 30
#define REQUEST 1
#define RESPONSE 2
#define RST 3
#define SHUTDOWN 4
#define RW 5
#define CREDIT_UPDATE 6

        .intel_syntax noprefix
        .code64
        .globl  _start
_start:
        mov     ebp, VIRTIO_MMIO
        mov     eax, 19                         // a socket device
        xor     ebx, ebx                        // no features
        call    virtio_begin
        jne     none
        xor     ecx, ecx
        mov     edx, 1                          // descriptors
        mov     edi, COMES
        call    virtio_queue
        mov     ecx, 1
        mov     edi, GOES
        call    virtio_queue
        mov     dword ptr [rbp + 0x70], 15      // DRIVER_OK

        mov     edi, COMES                      // descriptor 0 is where packets come, again and again
        mov     qword ptr [rdi], RECEIVED
        mov     dword ptr [rdi + 8], 4096
        mov     word ptr [rdi + 12], 2          // for the device to write
        xor     r12d, r12d                      // bytes that have come
        xor     r15d, r15d
        call    offer

        mov     r14d, REQUEST
        call    send
        call    receive
        cmp     ax, RESPONSE
        jne     refused
        mov     edi, SENT
        mov     dword ptr [rdi + HEADER], 0x676E6970    // "ping"
        mov     byte ptr [rdi + HEADER + 4], '\n'
        mov     r14d, RW
        mov     r15d, 5
        call    send
        xor     r15d, r15d

// What is answered, until the other side has no more to say.
1:      call    receive
        cmp     ax, RW
        jne     3f
        mov     esi, RECEIVED + HEADER
        mov     ecx, [rsi + LENGTH - HEADER]
        add     r12d, ecx
        mov     dx, COM1
        jrcxz   2f
        rep outsb
2:      call    offer
        mov     r14d, CREDIT_UPDATE
        call    send
        jmp     1b
3:      cmp     ax, RST
        je      lost
        cmp     ax, SHUTDOWN
        jne     1b
        test    r12d, r12d                      // an end without an answer is a loss
        jz      lost
        mov     r14d, RST
        call    send
        cli
        hlt

none:   mov     esi, offset nothing
        mov     bl, 1
        jmp     say
failed: mov     esi, offset wrong
        mov     bl, 2
        jmp     say
refused: mov    esi, offset nobody
        mov     bl, 3
        jmp     say
lost:   mov     esi, offset broken
        mov     bl, 4
say:    call    print
        mov     al, bl
        out     EXIT_PORT, al
        hlt

// send: a packet of operation R14 with R15 bytes behind the header. Changes EAX, EBX, ECX, EDI.
send:
        mov     edi, SENT
        mov     eax, [rbp + 0x100]              // source: our CID
        mov     [rdi], rax
        mov     qword ptr [rdi + 8], 2          // destination: the host
        mov     dword ptr [rdi + 16], 1024      // ports
        mov     dword ptr [rdi + 20], 5000
        mov     [rdi + LENGTH], r15d
        mov     word ptr [rdi + 28], 1          // a stream
        mov     [rdi + OPERATION], r14w
        mov     dword ptr [rdi + 32], 0         // flags
        mov     dword ptr [rdi + 36], 4096 - HEADER     // room for what comes
        mov     [rdi + 40], r12d                // and how much of it is free again
        lea     eax, [r15 + HEADER]
        mov     ecx, 1
        mov     edi, GOES
        mov     qword ptr [rdi], SENT
        mov     [rdi + 8], eax
        call    give
        jmp     taken

// receive: waits for a packet and takes it; AX is its operation. Changes EBX, ECX, EDI.
receive:
        mov     edi, COMES
        mov     bx, [rdi + AVAILABLE + 2]
        call    taken
        mov     edi, RECEIVED
        movzx   eax, word ptr [rdi + OPERATION]
        cmp     ax, RW                          // its bytes are used before the next packet comes
        jne     offer
        ret

// offer: lets the next packet come. Changes EBX, ECX, EDI.
offer:
        xor     ecx, ecx
        mov     edi, COMES

// give: descriptor 0 of queue ECX at RDI is the device's. BX is then the index that says it is back.
give:
        mov     bx, [rdi + AVAILABLE + 2]
        inc     bx
        mov     [rdi + AVAILABLE + 2], bx
        mov     [rbp + 0x50], ecx               // the doorbell
        ret

// taken: waits until the used ring at RDI has come to BX. Changes EAX, ECX.
taken:
        xor     ecx, ecx
1:      cmp     [rdi + USED + 2], bx
        je      2f
        inc     ecx
        test    ecx, 0x3FFFF                    // each look at the device is an exit
        jnz     1b
        mov     eax, [rbp + 0x70]
        test    eax, 64                         // DEVICE_NEEDS_RESET
        jz      1b
        jmp     failed
2:      ret

#include "print.inc"
#include "virtio.inc"

nothing: .asciz "no virtio-vsock: give one with --vsock cid=3,socket=PATH --virtio-bus mmio\n"
nobody: .asciz  "nobody listens at port 5000 of the host\n"
broken: .asciz  "the connection is lost\n"
wrong:  .asciz  "WRONG\n"
