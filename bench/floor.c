// The floor: the smallest C program that does kvmlite's job for a flat guest. No options parser, no
// device model, no error message worth the name: what it costs is what KVM costs, and scripts/bench
// holds kvmlite against it.
//
//   cc -O2 -o floor bench/floor.c
//   floor [-i] [-m MIB] [-a ADDRESS] real|protected|long IMAGE
//
// -i: with the in-kernel interrupt controllers and timer. HLT then waits inside KVM, so a guest
// must leave through the exit port. -m: memory, default 128. -a: load and enter there, default
// 0x10000.
// Ends with kvmlite's statuses: 0 after CLI and HLT, (V<<1)|1 after V went to port 0xF4, 70 after a
// triple fault or an exit it doesn't know, 71 if the host refused.
#include <err.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

enum { GDT = 0x500, PML4 = 0x1000, PDPT = 0x2000, PD = 0x3000 };

static int call(int fd, unsigned long request, const void *argument, const char *name) {
  int result = ioctl(fd, request, argument);
  if (result < 0) err(71, "%s", name);
  return result;
}

// One byte at one port. A wide access is split into bytes at successive ports, as on an 8-bit bus.
static void port_out(uint16_t port, uint8_t value) {
  if (port == 0x3F8 || port == 0xE9)
    if (write(1, &value, 1) != 1) err(71, "stdout");
  if (port == 0x64 && value == 0xFE) exit(0);
}

static uint8_t port_in(uint16_t port) {
  struct pollfd in = {.fd = 0, .events = POLLIN};
  uint8_t value = 0;
  switch (port) {
  case 0xE9: return 0xE9;
  case 0x3F8: return read(0, &value, 1) == 1 ? value : 0;                      // RBR
  case 0x3FD: return poll(&in, 1, 0) == 1 && in.revents & POLLIN ? 0x61 : 0x60; // LSR
  case 0x64: return 0;
  default: return 0xFF;
  }
}

// A repeated INS or OUTS comes as one exit of `count` items: the data advances, the port doesn't.
static void port_io(const struct kvm_run *run) {
  uint8_t *data = (uint8_t *)run + run->io.data_offset;
  for (unsigned item = 0; item < run->io.count; item++, data += run->io.size) {
    if (run->io.direction == KVM_EXIT_IO_OUT && run->io.port == 0xF4) exit(data[0] << 1 | 1);
    for (unsigned i = 0; i < run->io.size; i++)
      if (run->io.direction == KVM_EXIT_IO_OUT) port_out(run->io.port + i, data[i]);
      else data[i] = port_in(run->io.port + i);
  }
}

static void enter(int vcpu, uint8_t *ram, const char *mode, uint32_t at) {
  struct kvm_sregs s = {0};
  struct kvm_regs r = {.rflags = 2, .rip = at, .rsp = 0x10000};
  call(vcpu, KVM_GET_SREGS, &s, "KVM_GET_SREGS");
  if (!strcmp(mode, "real")) {
    struct kvm_segment *segments[] = {&s.cs, &s.ds, &s.es, &s.ss, &s.fs, &s.gs};
    for (int i = 0; i < 6; i++) segments[i]->base = at, segments[i]->selector = at >> 4;
    r.rip = 0, r.rsp = 0xFFF0;
  } else {
    int wide = !strcmp(mode, "long");
    uint64_t gdt[3] = {0, wide ? 0xAF9B000000FFFF : 0xCF9B000000FFFF, 0xCF93000000FFFF};
    memcpy(ram + GDT, gdt, sizeof gdt);
    s.gdt = (struct kvm_dtable){.base = GDT, .limit = sizeof gdt - 1};
    s.cs = (struct kvm_segment){.limit = ~0u, .selector = 8, .type = 11, .present = 1, .s = 1,
                                .g = 1, .db = !wide, .l = wide};
    s.ds = (struct kvm_segment){.limit = ~0u, .selector = 16, .type = 3, .present = 1, .s = 1,
                                .g = 1, .db = 1};
    s.es = s.ss = s.fs = s.gs = s.ds;
    s.cr0 |= 1;
    if (wide) { // the first 4 GiB, identity-mapped: 4 page directories of 512 pages of 2 MiB
      uint64_t *tables = (uint64_t *)ram;
      tables[PML4 / 8] = PDPT | 3;
      for (uint64_t i = 0; i < 4; i++) tables[PDPT / 8 + i] = (PD + i * 4096) | 3;
      for (uint64_t i = 0; i < 2048; i++) tables[PD / 8 + i] = i << 21 | 0x83;
      s.cr3 = PML4, s.cr4 |= 1 << 5, s.cr0 |= 1u << 31, s.efer |= 0x500;
    }
  }
  call(vcpu, KVM_SET_SREGS, &s, "KVM_SET_SREGS");
  call(vcpu, KVM_SET_REGS, &r, "KVM_SET_REGS");
}

int main(int count, char **word) {
  int irqchip = 0;
  size_t memory = 128 << 20;
  uint32_t at = 0x10000;
  for (int option; (option = getopt(count, word, "im:a:")) != -1;)
    switch (option) {
    case 'i': irqchip = 1; break;
    case 'm': memory = strtoul(optarg, 0, 0) << 20; break;
    case 'a': at = strtoul(optarg, 0, 0); break;
    default: return 64;
    }
  if (count - optind != 2) errx(64, "[-i] [-m MIB] [-a ADDRESS] real|protected|long IMAGE");
  const char *mode = word[optind], *path = word[optind + 1];

  int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
  if (kvm < 0) err(69, "/dev/kvm");
  int vm = call(kvm, KVM_CREATE_VM, 0, "KVM_CREATE_VM");
  call(vm, KVM_SET_TSS_ADDR, (void *)0xFFFBD000, "KVM_SET_TSS_ADDR"); // VT-x wants 3 pages
  uint8_t *ram = mmap(0, memory, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (ram == MAP_FAILED) err(71, "mmap");
  struct kvm_userspace_memory_region slot = {.memory_size = memory,
                                             .userspace_addr = (uintptr_t)ram};
  call(vm, KVM_SET_USER_MEMORY_REGION, &slot, "KVM_SET_USER_MEMORY_REGION");
  if (irqchip) {
    struct kvm_pit_config pit = {0};
    call(vm, KVM_CREATE_IRQCHIP, 0, "KVM_CREATE_IRQCHIP");
    call(vm, KVM_CREATE_PIT2, &pit, "KVM_CREATE_PIT2");
  }

  int image = open(path, O_RDONLY | O_CLOEXEC);
  if (image < 0 || read(image, ram + at, memory - at) <= 0) err(66, "%s", path);

  int vcpu = call(vm, KVM_CREATE_VCPU, 0, "KVM_CREATE_VCPU");
  size_t size = call(kvm, KVM_GET_VCPU_MMAP_SIZE, 0, "KVM_GET_VCPU_MMAP_SIZE");
  struct kvm_run *run = mmap(0, size, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu, 0);
  if (run == MAP_FAILED) err(71, "mmap of the VCPU");
  enter(vcpu, ram, mode, at);

  for (;;) {
    call(vcpu, KVM_RUN, 0, "KVM_RUN");
    switch (run->exit_reason) {
    case KVM_EXIT_IO: port_io(run); break;
    case KVM_EXIT_MMIO: // nothing is there: a read gives all ones, a write is dropped
      if (!run->mmio.is_write) memset(run->mmio.data, 0xFF, sizeof run->mmio.data);
      break;
    case KVM_EXIT_HLT: return 0;
    default: errx(70, "exit reason %u", run->exit_reason);
    }
  }
}
