// CKVM: the ioctls of /dev/kvm as C functions.
//
// Swift imports <linux/kvm.h>'s structures, unions and plain constants by itself. It can't import
// function-like macros (so no _IO*() request number) nor flexible array members: this shim has one
// static inline for each ioctl and, for the structures that end in an array, one accessor for that
// array. Nothing else: no policy, no state. Each function returns what ioctl(2) returned.
//
// Order and names follow Linux's Documentation/virt/kvm/api.rst.
#pragma once

#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdint.h>
#include <string.h>
#include <sys/ioctl.h>

// Each has its number as ckvm_NAME_request, too.
#define CKVM_IOCTL(name, request)                                                                  \
  static const uint32_t ckvm_##name##_request = request;                                           \
  static inline int ckvm_##name(int fd) { return ioctl(fd, request, 0); }
#define CKVM_IOCTL_VALUE(name, request)                                                            \
  static const uint32_t ckvm_##name##_request = request;                                           \
  static inline int ckvm_##name(int fd, unsigned long value) { return ioctl(fd, request, value); }
#define CKVM_IOCTL_POINTER(name, request, type)                                                    \
  static const uint32_t ckvm_##name##_request = request;                                           \
  static inline int ckvm_##name(int fd, type *argument) { return ioctl(fd, request, argument); }
#define CKVM_IOCTL_CONST(name, request, type)                                                      \
  static const uint32_t ckvm_##name##_request = request;                                           \
  static inline int ckvm_##name(int fd, const type *argument) { return ioctl(fd, request, argument); }

// System: the descriptor of /dev/kvm

CKVM_IOCTL(get_api_version, KVM_GET_API_VERSION)
CKVM_IOCTL_VALUE(create_vm, KVM_CREATE_VM)
CKVM_IOCTL_POINTER(get_msr_index_list, KVM_GET_MSR_INDEX_LIST, struct kvm_msr_list)
CKVM_IOCTL_POINTER(get_msr_feature_index_list, KVM_GET_MSR_FEATURE_INDEX_LIST, struct kvm_msr_list)
CKVM_IOCTL(get_vcpu_mmap_size, KVM_GET_VCPU_MMAP_SIZE)
CKVM_IOCTL_POINTER(get_supported_cpuid, KVM_GET_SUPPORTED_CPUID, struct kvm_cpuid2)

// System and VM

CKVM_IOCTL_VALUE(check_extension, KVM_CHECK_EXTENSION)
CKVM_IOCTL_CONST(enable_cap, KVM_ENABLE_CAP, struct kvm_enable_cap)
CKVM_IOCTL(get_stats_fd, KVM_GET_STATS_FD)

// VM

CKVM_IOCTL_VALUE(create_vcpu, KVM_CREATE_VCPU)
CKVM_IOCTL_CONST(set_user_memory_region, KVM_SET_USER_MEMORY_REGION,
                 struct kvm_userspace_memory_region)
CKVM_IOCTL(reset_dirty_rings, KVM_RESET_DIRTY_RINGS)
CKVM_IOCTL_VALUE(set_tss_addr, KVM_SET_TSS_ADDR)
CKVM_IOCTL_CONST(set_identity_map_addr, KVM_SET_IDENTITY_MAP_ADDR, uint64_t)
CKVM_IOCTL_VALUE(set_boot_cpu_id, KVM_SET_BOOT_CPU_ID)
CKVM_IOCTL(create_irqchip, KVM_CREATE_IRQCHIP)
CKVM_IOCTL_CONST(irq_line, KVM_IRQ_LINE, struct kvm_irq_level)
CKVM_IOCTL_POINTER(irq_line_status, KVM_IRQ_LINE_STATUS, struct kvm_irq_level)
CKVM_IOCTL_POINTER(get_irqchip, KVM_GET_IRQCHIP, struct kvm_irqchip)
CKVM_IOCTL_POINTER(set_irqchip, KVM_SET_IRQCHIP, const struct kvm_irqchip)
CKVM_IOCTL_CONST(create_pit2, KVM_CREATE_PIT2, struct kvm_pit_config)
CKVM_IOCTL_POINTER(get_pit2, KVM_GET_PIT2, struct kvm_pit_state2)
CKVM_IOCTL_CONST(set_pit2, KVM_SET_PIT2, struct kvm_pit_state2)
CKVM_IOCTL_CONST(set_gsi_routing, KVM_SET_GSI_ROUTING, struct kvm_irq_routing)
CKVM_IOCTL_CONST(signal_msi, KVM_SIGNAL_MSI, struct kvm_msi)
CKVM_IOCTL_CONST(irqfd, KVM_IRQFD, struct kvm_irqfd)
CKVM_IOCTL_CONST(ioeventfd, KVM_IOEVENTFD, struct kvm_ioeventfd)
CKVM_IOCTL_CONST(register_coalesced_mmio, KVM_REGISTER_COALESCED_MMIO,
                 struct kvm_coalesced_mmio_zone)
CKVM_IOCTL_CONST(unregister_coalesced_mmio, KVM_UNREGISTER_COALESCED_MMIO,
                 struct kvm_coalesced_mmio_zone)
CKVM_IOCTL_POINTER(get_clock, KVM_GET_CLOCK, struct kvm_clock_data)
CKVM_IOCTL_CONST(set_clock, KVM_SET_CLOCK, struct kvm_clock_data)
CKVM_IOCTL_POINTER(create_device, KVM_CREATE_DEVICE, struct kvm_create_device)
CKVM_IOCTL_CONST(set_device_attr, KVM_SET_DEVICE_ATTR, struct kvm_device_attr)
CKVM_IOCTL_CONST(get_device_attr, KVM_GET_DEVICE_ATTR, struct kvm_device_attr)
CKVM_IOCTL_CONST(has_device_attr, KVM_HAS_DEVICE_ATTR, struct kvm_device_attr)

// VCPU

CKVM_IOCTL(run, KVM_RUN)
CKVM_IOCTL_POINTER(get_regs, KVM_GET_REGS, struct kvm_regs)
CKVM_IOCTL_CONST(set_regs, KVM_SET_REGS, struct kvm_regs)
CKVM_IOCTL_POINTER(get_sregs, KVM_GET_SREGS, struct kvm_sregs)
CKVM_IOCTL_CONST(set_sregs, KVM_SET_SREGS, struct kvm_sregs)
CKVM_IOCTL_POINTER(get_sregs2, KVM_GET_SREGS2, struct kvm_sregs2)
CKVM_IOCTL_CONST(set_sregs2, KVM_SET_SREGS2, struct kvm_sregs2)
CKVM_IOCTL_POINTER(get_xsave, KVM_GET_XSAVE, struct kvm_xsave)
CKVM_IOCTL_POINTER(get_xsave2, KVM_GET_XSAVE2, struct kvm_xsave)
CKVM_IOCTL_CONST(set_xsave, KVM_SET_XSAVE, struct kvm_xsave)
CKVM_IOCTL_POINTER(get_xcrs, KVM_GET_XCRS, struct kvm_xcrs)
CKVM_IOCTL_CONST(set_xcrs, KVM_SET_XCRS, struct kvm_xcrs)
CKVM_IOCTL_POINTER(get_msrs, KVM_GET_MSRS, struct kvm_msrs)
CKVM_IOCTL_CONST(set_msrs, KVM_SET_MSRS, struct kvm_msrs)
CKVM_IOCTL_POINTER(get_cpuid2, KVM_GET_CPUID2, struct kvm_cpuid2)
CKVM_IOCTL_CONST(set_cpuid2, KVM_SET_CPUID2, struct kvm_cpuid2)
CKVM_IOCTL_POINTER(get_lapic, KVM_GET_LAPIC, struct kvm_lapic_state)
CKVM_IOCTL_CONST(set_lapic, KVM_SET_LAPIC, struct kvm_lapic_state)
CKVM_IOCTL_POINTER(get_mp_state, KVM_GET_MP_STATE, struct kvm_mp_state)
CKVM_IOCTL_CONST(set_mp_state, KVM_SET_MP_STATE, struct kvm_mp_state)
CKVM_IOCTL_POINTER(get_vcpu_events, KVM_GET_VCPU_EVENTS, struct kvm_vcpu_events)
CKVM_IOCTL_CONST(set_vcpu_events, KVM_SET_VCPU_EVENTS, struct kvm_vcpu_events)
CKVM_IOCTL_POINTER(get_debugregs, KVM_GET_DEBUGREGS, struct kvm_debugregs)
CKVM_IOCTL_CONST(set_debugregs, KVM_SET_DEBUGREGS, struct kvm_debugregs)
CKVM_IOCTL_CONST(set_guest_debug, KVM_SET_GUEST_DEBUG, struct kvm_guest_debug)
CKVM_IOCTL_POINTER(translate, KVM_TRANSLATE, struct kvm_translation)
CKVM_IOCTL_CONST(interrupt, KVM_INTERRUPT, struct kvm_interrupt)
CKVM_IOCTL_CONST(x86_setup_mce, KVM_X86_SETUP_MCE, uint64_t)
CKVM_IOCTL(nmi, KVM_NMI)
CKVM_IOCTL(smi, KVM_SMI)
CKVM_IOCTL_CONST(set_signal_mask, KVM_SET_SIGNAL_MASK, struct kvm_signal_mask)
CKVM_IOCTL_VALUE(set_tsc_khz, KVM_SET_TSC_KHZ)
CKVM_IOCTL(get_tsc_khz, KVM_GET_TSC_KHZ)
CKVM_IOCTL(kvmclock_ctrl, KVM_KVMCLOCK_CTRL)

#undef CKVM_IOCTL
#undef CKVM_IOCTL_VALUE
#undef CKVM_IOCTL_POINTER
#undef CKVM_IOCTL_CONST

// Structures with a pointer inside, which Swift counts as unsafe: one function for each request

static const uint32_t ckvm_get_dirty_log_request = KVM_GET_DIRTY_LOG;
static const uint32_t ckvm_clear_dirty_log_request = KVM_CLEAR_DIRTY_LOG;

static inline int ckvm_get_dirty_log(int fd, uint32_t slot, uint64_t *bitmap) {
  struct kvm_dirty_log log = {.slot = slot, .dirty_bitmap = bitmap};
  return ioctl(fd, KVM_GET_DIRTY_LOG, &log);
}
static inline int ckvm_clear_dirty_log(int fd, uint32_t slot, uint64_t first_page,
                                       uint32_t page_count, uint64_t *bitmap) {
  struct kvm_clear_dirty_log log = {.slot = slot,
                                    .num_pages = page_count,
                                    .first_page = first_page,
                                    .dirty_bitmap = bitmap};
  return ioctl(fd, KVM_CLEAR_DIRTY_LOG, &log);
}

// Flexible array members

static inline struct kvm_cpuid_entry2 *ckvm_cpuid_entries(struct kvm_cpuid2 *cpuid) {
  return cpuid->entries;
}
static inline struct kvm_msr_entry *ckvm_msr_entries(struct kvm_msrs *msrs) {
  return msrs->entries;
}
static inline uint32_t *ckvm_msr_indices(struct kvm_msr_list *list) { return list->indices; }
static inline struct kvm_irq_routing_entry *ckvm_routing_entries(struct kvm_irq_routing *routing) {
  return routing->entries;
}
static inline uint8_t *ckvm_signal_mask_bytes(struct kvm_signal_mask *mask) {
  return mask->sigset;
}
static inline const char *ckvm_stats_name(const struct kvm_stats_desc *description) {
  return description->name;
}

// Members of unions and arrays that Swift sees as tuples

static inline uint64_t ckvm_internal_data(const struct kvm_run *run, unsigned index) {
  return index < 16 ? run->internal.data[index] : 0;
}

static inline uint64_t ckvm_ioapic_redirection(const struct kvm_irqchip *chip, unsigned index) {
  return index < KVM_IOAPIC_NUM_PINS ? chip->chip.ioapic.redirtbl[index].bits : 0;
}
static inline uint32_t ckvm_lapic_register(const struct kvm_lapic_state *lapic, unsigned offset) {
  uint32_t value = 0;
  if (offset <= sizeof(lapic->regs) - sizeof(value))
    memcpy(&value, lapic->regs + offset, sizeof(value));
  return value;
}

// immediate_exit is written by the thread that kicks while the VCPU's thread reads it.

static inline void ckvm_set_immediate_exit(struct kvm_run *run, uint8_t value) {
  __atomic_store_n(&run->immediate_exit, value, __ATOMIC_RELEASE);
}
