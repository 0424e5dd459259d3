// The lab `build`: a hypervisor on /dev/kvm that runs the guest in the file that it is given.
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

enum { LOAD = 0x1000, RAM = 640 << 10, SERIAL = 0x3F8, RAISE = 0x80, ADDER = 0xD0000, QUEUE = 64 };

static uint32_t sum;
static uint8_t waiting[QUEUE];
static int first, last;

static void fail(const char *what) { perror(what); exit(1); }

static int request(int file, unsigned long number, void *argument, const char *what) {
  int result = ioctl(file, number, argument);
  if (result < 0) fail(what);
  return result;
}

static void port(struct kvm_run *run) {
  uint8_t *data = (uint8_t *)run + run->io.data_offset;
  for (unsigned i = 0; i < run->io.count; i++, data += run->io.size) {
    if (run->io.port == SERIAL && run->io.direction == KVM_EXIT_IO_OUT) {
      putchar(*data);
    } else if (run->io.port == SERIAL) {
      *data = (uint8_t)getchar();
    } else if (run->io.port == RAISE && run->io.direction == KVM_EXIT_IO_OUT) {
      waiting[last++ % QUEUE] = *data;
    }
  }
}

static void mmio(struct kvm_run *run) {
  uint32_t value = 0;
  if (run->mmio.phys_addr == ADDER && run->mmio.is_write) {
    memcpy(&value, run->mmio.data, run->mmio.len < 4 ? run->mmio.len : 4);
    sum += value;
  } else if (run->mmio.phys_addr == ADDER + 4 && !run->mmio.is_write) {
    memcpy(run->mmio.data, &sum, run->mmio.len < 4 ? run->mmio.len : 4);
  }
}

int main(int count, char **words) {
  if (count != 2) {
    fprintf(stderr, "usage: vmm IMAGE\n");
    return 64;
  }
  int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
  if (kvm < 0) fail("/dev/kvm");
  int vm = request(kvm, KVM_CREATE_VM, 0, "KVM_CREATE_VM");
  // kvm_intel keeps what it needs for real mode in guest-physical addresses that are free.
  request(vm, KVM_SET_TSS_ADDR, (void *)0xFFFBD000, "KVM_SET_TSS_ADDR");
  uint8_t *ram = mmap(0, RAM, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (ram == MAP_FAILED) fail("mmap");
  int image = open(words[1], O_RDONLY);
  if (image < 0 || read(image, ram + LOAD, RAM - LOAD) < 0) fail(words[1]);
  struct kvm_userspace_memory_region region = {
    .slot = 0, .guest_phys_addr = 0, .memory_size = RAM, .userspace_addr = (uintptr_t)ram,
  };
  request(vm, KVM_SET_USER_MEMORY_REGION, &region, "KVM_SET_USER_MEMORY_REGION");

  int vcpu = request(vm, KVM_CREATE_VCPU, 0, "KVM_CREATE_VCPU");
  int size = request(kvm, KVM_GET_VCPU_MMAP_SIZE, 0, "KVM_GET_VCPU_MMAP_SIZE");
  struct kvm_run *run = mmap(0, (size_t)size, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu, 0);
  if (run == MAP_FAILED) fail("mmap of the VCPU");
  struct kvm_sregs special;
  request(vcpu, KVM_GET_SREGS, &special, "KVM_GET_SREGS");
  special.cs.base = 0;
  special.cs.selector = 0;
  request(vcpu, KVM_SET_SREGS, &special, "KVM_SET_SREGS");
  struct kvm_regs registers = {.rip = LOAD, .rflags = 2};
  request(vcpu, KVM_SET_REGS, &registers, "KVM_SET_REGS");

  for (;;) {
    if (first != last && run->ready_for_interrupt_injection) {
      struct kvm_interrupt interrupt = {.irq = waiting[first++ % QUEUE]};
      request(vcpu, KVM_INTERRUPT, &interrupt, "KVM_INTERRUPT");
    }
    run->request_interrupt_window = first != last;
    request(vcpu, KVM_RUN, 0, "KVM_RUN");
    switch (run->exit_reason) {
    case KVM_EXIT_IO: port(run); break;
    case KVM_EXIT_MMIO: mmio(run); break;
    case KVM_EXIT_IRQ_WINDOW_OPEN: break;
    case KVM_EXIT_HLT:
      if (first != last) break;
      request(vcpu, KVM_GET_REGS, &registers, "KVM_GET_REGS");
      printf("halt: ax=%04x\n", (unsigned)registers.rax & 0xFFFF);
      return 0;
    default:
      fprintf(stderr, "exit reason %u is not expected\n", run->exit_reason);
      return 1;
    }
  }
}
