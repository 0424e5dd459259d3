// The lab `build`: a hypervisor on /dev/kvm that runs the guest in the file that it is given.
//
//   cc -Wall -o vmm build.c && ./vmm one.bin
//   kvmlite lab build --program build.c
//
// docs/labs/build.md says what goes where.
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

enum { LOAD = 0x1000, RAM = 640 << 10, SERIAL = 0x3F8, RAISE = 0x80, ADDER = 0xD0000 };

static void fail(const char *what) {
  perror(what);
  exit(1);
}

// An ioctl that must not fail.
static int request(int file, unsigned long number, void *argument, const char *name) {
  int result = ioctl(file, number, argument);
  if (result < 0) fail(name);
  return result;
}

int main(int count, char **words) {
  if (count != 2) {
    fprintf(stderr, "usage: vmm IMAGE\n");
    return 64;
  }
  int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
  if (kvm < 0) fail("/dev/kvm");
  int version = request(kvm, KVM_GET_API_VERSION, 0, "KVM_GET_API_VERSION");

  // Step 1: a VM, its memory with the image in it, a VCPU, its registers.

  // Step 1: KVM_RUN, and at HLT: printf("halt: ax=%04x\n", ...).
  // Step 2: KVM_EXIT_IO. Step 3: KVM_EXIT_MMIO. Step 4: interrupts.

  fprintf(stderr, "KVM's version is %d; %s is not run yet\n", version, words[1]);
  return 0;
}
