// The floor of a restore: the smallest C program that goes on with a machine that kvmlite saved, of the
// same two files: one VCPU, interrupt controllers, timer, and memory as a private view. It knows no device
// but the debug console at port 0xE9, checks nothing, and is what scripts/bench-save holds kvmlite against.
//
//   cc -O2 -o restore-floor bench/restore-floor.c
//   restore-floor FOLDER
#include <err.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

struct bytes {
  const uint8_t *data;
  uint64_t count;
};

static uint64_t number(const uint8_t *data, int count) {
  uint64_t value = 0;
  memcpy(&value, data, count);
  return value;
}

// The section called `name` (Sources/Machine/Lifecycle/SavedMachineBytes.swift has the form).
static struct bytes section(struct bytes file, const char *name) {
  const uint8_t *at = file.data + 16;
  for (uint32_t left = number(file.data + 12, 4); left--;) {
    uint16_t length = number(at + 4, 2);
    const uint8_t *text = at + 6;
    uint64_t count = number(text + length + 4, 8);
    at = text + length + 12;
    if (length == strlen(name) && !memcmp(text, name, length)) return (struct bytes){at, count};
    at += count;
  }
  errx(65, "no section %s", name);
}

// The field called `name` of a state (Sources/Devices/State.swift).
static struct bytes field(struct bytes state, const char *name) {
  for (const uint8_t *at = state.data; at < state.data + state.count;) {
    uint8_t length = *at;
    struct bytes value = {at + 1 + length + 4, number(at + 1 + length, 4)};
    if (length == strlen(name) && !memcmp(at + 1, name, length)) return value;
    at = value.data + value.count;
  }
  return (struct bytes){0, 0};
}

static int call(int fd, unsigned long request, const void *argument, const char *name) {
  int result = ioctl(fd, request, argument);
  if (result < 0) err(71, "%s", name);
  return result;
}

static struct bytes whole(const char *path, int *file) {
  struct stat facts;
  *file = open(path, O_RDONLY | O_CLOEXEC);
  if (*file < 0 || fstat(*file, &facts)) err(66, "%s", path);
  void *data = mmap(0, facts.st_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_NORESERVE, *file, 0);
  if (data == MAP_FAILED) err(66, "%s", path);
  return (struct bytes){data, facts.st_size};
}

static void set_cpuid(int vcpu, struct bytes entries) {
  uint32_t count = entries.count / 28;
  struct kvm_cpuid2 *cpuid = calloc(1, sizeof *cpuid + count * sizeof cpuid->entries[0]);
  cpuid->nent = count;
  for (uint32_t i = 0; i < count; i++) memcpy(&cpuid->entries[i], entries.data + i * 28, 28);
  call(vcpu, KVM_SET_CPUID2, cpuid, "KVM_SET_CPUID2");
}

static void set_msrs(int vcpu, struct bytes saved) {
  uint32_t count = saved.count / 12, changed = 0;
  struct kvm_msrs *msrs = calloc(1, sizeof *msrs + count * sizeof msrs->entries[0]);
  msrs->nmsrs = count;
  for (uint32_t i = 0; i < count; i++) msrs->entries[i].index = number(saved.data + i * 12, 4);
  call(vcpu, KVM_GET_MSRS, msrs, "KVM_GET_MSRS");
  for (uint32_t i = 0; i < count; i++) {
    uint64_t value = number(saved.data + i * 12 + 4, 8);
    if (msrs->entries[i].data == value) continue;
    msrs->entries[changed].index = msrs->entries[i].index;
    msrs->entries[changed++].data = value;
  }
  msrs->nmsrs = changed;
  if (changed) call(vcpu, KVM_SET_MSRS, msrs, "KVM_SET_MSRS");
}

#define SET(fd, request, bytes) call(fd, request, (bytes).data, #request)

int main(int count, char **word) {
  if (count != 2 || chdir(word[1])) errx(64, "FOLDER");
  int file;
  struct bytes engine = section(whole("state", &file), "engine"), cpu = field(engine, "vcpu0");
  struct bytes ram = whole("memory", &file);

  int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
  if (kvm < 0) err(69, "/dev/kvm");
  int vm = call(kvm, KVM_CREATE_VM, 0, "KVM_CREATE_VM");
  call(vm, KVM_SET_TSS_ADDR, (void *)0xFFFBD000, "KVM_SET_TSS_ADDR");
  uint64_t low = ram.count < 0xC0000000 ? ram.count : 0xC0000000;
  struct kvm_userspace_memory_region slot = {.memory_size = low,
                                             .userspace_addr = (uintptr_t)ram.data};
  call(vm, KVM_SET_USER_MEMORY_REGION, &slot, "KVM_SET_USER_MEMORY_REGION");
  if (ram.count > low) {
    slot = (struct kvm_userspace_memory_region){
        .slot = 1, .guest_phys_addr = 1ull << 32, .memory_size = ram.count - low,
        .userspace_addr = (uintptr_t)ram.data + low};
    call(vm, KVM_SET_USER_MEMORY_REGION, &slot, "KVM_SET_USER_MEMORY_REGION");
  }
  struct kvm_pit_config pit = {0};
  call(vm, KVM_CREATE_IRQCHIP, 0, "KVM_CREATE_IRQCHIP");
  call(vm, KVM_CREATE_PIT2, &pit, "KVM_CREATE_PIT2");
  int vcpu = call(vm, KVM_CREATE_VCPU, 0, "KVM_CREATE_VCPU");
  size_t size = call(kvm, KVM_GET_VCPU_MMAP_SIZE, 0, "KVM_GET_VCPU_MMAP_SIZE");
  struct kvm_run *run = mmap(0, size, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu, 0);
  if (run == MAP_FAILED) err(71, "mmap of the VCPU");

  set_cpuid(vcpu, field(cpu, "KVM_SET_CPUID2"));
  SET(vcpu, KVM_SET_MP_STATE, field(cpu, "KVM_GET_MP_STATE"));
  SET(vcpu, KVM_SET_REGS, field(cpu, "KVM_GET_REGS"));
  SET(vcpu, KVM_SET_SREGS, field(cpu, "KVM_GET_SREGS"));
  SET(vcpu, KVM_SET_XSAVE, field(cpu, "KVM_GET_XSAVE2"));
  if (field(cpu, "KVM_GET_XCRS").data) SET(vcpu, KVM_SET_XCRS, field(cpu, "KVM_GET_XCRS"));
  SET(vcpu, KVM_SET_DEBUGREGS, field(cpu, "KVM_GET_DEBUGREGS"));
  SET(vcpu, KVM_SET_LAPIC, field(cpu, "KVM_GET_LAPIC"));
  set_msrs(vcpu, field(cpu, "KVM_GET_MSRS"));
  SET(vcpu, KVM_SET_VCPU_EVENTS, field(cpu, "KVM_GET_VCPU_EVENTS"));
  for (int chip = 1, left = 3; left--; chip = chip == 1 ? 0 : 2) {
    char name[] = "KVM_GET_IRQCHIP 0";
    name[sizeof name - 2] += chip;
    SET(vm, KVM_SET_IRQCHIP, field(field(engine, name), "chip"));
  }
  SET(vm, KVM_SET_PIT2, field(engine, "KVM_GET_PIT2"));
  struct kvm_clock_data clock = {.clock = number(field(engine, "KVM_GET_CLOCK").data, 8)};
  call(vm, KVM_SET_CLOCK, &clock, "KVM_SET_CLOCK");

  for (;;) {
    call(vcpu, KVM_RUN, 0, "KVM_RUN");
    if (run->exit_reason != KVM_EXIT_IO) errx(70, "exit reason %u", run->exit_reason);
    uint8_t *data = (uint8_t *)run + run->io.data_offset;
    if (run->io.direction == KVM_EXIT_IO_OUT && run->io.port == 0xE9 && write(1, data, 1) != 1)
      err(71, "stdout");
  }
}
