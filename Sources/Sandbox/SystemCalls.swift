import CKVM
import CLinux
import Host

/// Which system calls the threads of a confined kvmlite make: all that there are, and no others.
///
/// What is missing on purpose: every call that takes a path (`openat`, `rename`, `unlink`, `execve`), that
/// makes a socket or connects one (`socket`, `connect`, `bind`), that reaches other processes (`ptrace`,
/// `kill`, `process_vm_readv`), that changes rights or namespaces, and executable memory. What needs those
/// later is an `Errand`.
package enum SystemCalls {
  private typealias Rule = SystemCallFilter.Rule
  private typealias Verdict = SystemCallFilter.Verdict

  /// The filter of a thread that is for `role` in process `process`. From `exempt`, all is allowed.
  package static func filter(
    for role: ThreadRole, process: Int32, exempt: UInt64? = nil
  ) -> SystemCallFilter {
    SystemCallFilter(
      rules(for: role, process: process), hot: runRequest(role), exempt: exempt)
  }

  /// The same for a thread in a process that is somebody else's, whose signals are, too: what isn't allowed
  /// fails.
  package static func libraryFilter(for role: ThreadRole, process: Int32) -> SystemCallFilter {
    SystemCallFilter(
      rules(for: role, process: process), hot: runRequest(role), error: EPERM)
  }

  private static func runRequest(_ role: ThreadRole) -> (call: Int, request: UInt32)? {
    role == .worker ? nil : (call: Int(SYS_ioctl), request: ckvm_run_request)
  }

  /// The same as a table, a row for each call.
  package static func rules(
    for role: ThreadRole, process: Int32
  ) -> [SystemCallFilter.Rule] {
    var rules = everybody(process)
    if role != .vcpu { rules += files + clients + children }
    let requests =
      switch role {
      case .loop: machineRequests + vcpuRequests + deviceRequests
      case .vcpu: vcpuRequests + deviceRequests
      case .worker: deviceRequests
      }
    rules.append(Rule(Int(SYS_ioctl), .allowIf(index: 1, requests + terminalRequests)))
    return rules
  }

  /// The filter of a program that makes text of what it is handed, objdump: it reads files and writes to
  /// what is open. What else it tries fails, for another version of it may do without.
  package static var helperFilter: SystemCallFilter {
    let plain = [
      SYS_read, SYS_pread64, SYS_write, SYS_writev, SYS_close, SYS_lseek, SYS_fstat, SYS_newfstatat,
      SYS_stat, SYS_access, SYS_readlink, SYS_getcwd, SYS_mmap, SYS_mprotect, SYS_munmap,
      SYS_mremap,
      SYS_madvise, SYS_brk, SYS_futex, SYS_getrandom, SYS_rt_sigaction, SYS_rt_sigprocmask,
      SYS_rt_sigreturn, SYS_sigaltstack, SYS_arch_prctl, SYS_set_tid_address, SYS_set_robust_list,
      SYS_rseq, SYS_getrlimit, SYS_sysinfo, SYS_uname, SYS_getpid, SYS_gettid, SYS_getuid,
      SYS_geteuid, SYS_getgid, SYS_getegid, SYS_clock_gettime, SYS_exit, SYS_exit_group,
      // How it begins.
      SYS_execve,
    ].map { Rule(Int($0)) }
    return SystemCallFilter(
      plain + readingFiles + [
        ownLimits, Rule(Int(SYS_ioctl), .allowIf(index: 1, [UInt32(TCGETS)])),
        Rule(
          Int(SYS_fcntl), .allowIf(index: 1, [UInt32(F_GETFD), UInt32(F_SETFD), UInt32(F_GETFL)])),
      ], error: EPERM)
  }

  /// The filter of a command that works on disk images, which may be anybody's: `process` opens files by
  /// their names, and changes some only if it `writes`; it starts no program and reaches no other process
  /// and no network, nor types into the terminal. What else it tries fails.
  package static func diskFilter(process: Int32, writes: Bool) -> SystemCallFilter {
    let names = [
      SYS_newfstatat, SYS_stat, SYS_lstat, SYS_statx, SYS_access, SYS_faccessat, SYS_faccessat2,
      SYS_readlink, SYS_readlinkat, SYS_getcwd, SYS_uname, SYS_sysinfo, SYS_flock, SYS_fadvise64,
    ].map { Rule(Int($0)) }
    let changes = [
      SYS_openat, SYS_open, SYS_rename, SYS_renameat, SYS_renameat2, SYS_link, SYS_linkat,
      SYS_unlink, SYS_unlinkat, SYS_fchmod, SYS_fchown, SYS_sync_file_range,
    ].map { Rule(Int($0)) }
    let requests = [UInt32(TCGETS), UInt32(TIOCGWINSZ), CLINUX_BLKGETSIZE64]
    let own = everybody(process).filter { $0.number != Int(SYS_newfstatat) }
    return SystemCallFilter(
      own + names + files + (writes ? changes : readingFiles) + [
        ownLimits, Rule(Int(SYS_ioctl), .allowIf(index: 1, requests)),
      ], error: EPERM)
  }

  /// O_WRONLY, O_RDWR, O_CREAT and O_TRUNC are for others.
  private static let readingFiles = [
    Rule(Int(SYS_openat), .allowIf(index: 2, mask: 0o1103, [0])),
    Rule(Int(SYS_open), .allowIf(index: 1, mask: 0o1103, [0])),
  ]

  /// Limits of the calling process alone.
  private static let ownLimits = Rule(Int(SYS_prlimit64), .allowIf(index: 0, [0]))

  // MARK: Calls

  /// For all threads: memory, time, waiting, other threads of this process, and what is open.
  private static func everybody(_ process: Int32) -> [Rule] {
    let plain = [
      SYS_read, SYS_write, SYS_readv, SYS_writev, SYS_close, SYS_lseek, SYS_fstat, SYS_poll,
      SYS_ppoll,
      SYS_futex, SYS_sched_yield, SYS_sched_getaffinity, SYS_nanosleep, SYS_clock_nanosleep,
      SYS_clock_gettime, SYS_clock_getres, SYS_gettimeofday, SYS_time, SYS_restart_syscall,
      SYS_epoll_wait, SYS_epoll_pwait, SYS_epoll_pwait2, SYS_epoll_ctl, SYS_epoll_create1,
      SYS_eventfd2, SYS_timerfd_create, SYS_timerfd_settime, SYS_timerfd_gettime,
      SYS_munmap, SYS_mremap, SYS_madvise, SYS_brk, SYS_mincore, SYS_getrandom,
      SYS_rt_sigreturn, SYS_rt_sigprocmask, SYS_rt_sigaction, SYS_sigaltstack,
      SYS_getpid, SYS_gettid, SYS_getuid, SYS_geteuid, SYS_getgid, SYS_getegid,
      SYS_set_robust_list, SYS_rseq, SYS_exit, SYS_exit_group,
      // An errand's words and files.
      SYS_sendmsg, SYS_recvmsg, SYS_memfd_create, SYS_pwrite64, SYS_pread64, SYS_ftruncate,
    ].map { Rule(Int($0)) }
    return plain + [
      Rule(Int(SYS_mmap), .allowIf(index: 2, mask: executable, [0])),
      Rule(Int(SYS_mprotect), .allowIf(index: 2, mask: executable, [0])),
      // The file that is open, by an empty path: how the C library does fstat(2).
      Rule(Int(SYS_newfstatat), .allowIf(index: 3, [UInt32(emptyPath)])),
      // pthread_create(3)'s flags. With an error instead of clone3(2), whose flags no filter can see, the
      // C library falls back to this.
      Rule(Int(SYS_clone), .allowIf(index: 0, [threadFlags])),
      Rule(clone3, .fail(ENOSYS)),
      Rule(Int(SYS_tgkill), .allowIf(index: 0, [UInt32(process)])),
      Rule(Int(SYS_prctl), .allowIf(index: 0, [UInt32(PR_SET_NAME), UInt32(PR_GET_NAME)])),
      Rule(
        Int(SYS_fcntl),
        .allowIf(
          index: 1,
          [
            F_GETFD, F_SETFD, F_GETFL, F_SETFL, duplicate, Int32(CLINUX_F_OFD_GETLK),
            Int32(CLINUX_F_OFD_SETLK),
            addSeals, getSeals,
          ].map { UInt32($0) })),
      // A thread installs its own, narrower filter.
      Rule(Int(SYS_seccomp), .allowIf(index: 0, [1])),
    ]
  }

  /// Disks, and whatever else is written.
  private static let files = [
    SYS_preadv, SYS_pwritev, SYS_preadv2, SYS_pwritev2, SYS_fsync, SYS_fdatasync, SYS_fallocate,
    SYS_copy_file_range, SYS_fstatfs, SYS_dup, SYS_dup2, SYS_pipe2,
  ].map { Rule(Int($0)) }

  /// Sockets that are there, and those of whoever connects to one.
  private static let clients = [
    SYS_accept4, SYS_sendto, SYS_recvfrom, SYS_shutdown, SYS_getsockopt, SYS_socketpair,
  ].map { Rule(Int($0)) }

  /// The end of a process that was started before.
  private static let children = [
    SYS_wait4, SYS_waitid, SYS_getpgrp, SYS_getrusage, SYS_sysinfo,
  ].map { Rule(Int($0)) }

  // MARK: Requests

  /// What makes and changes VMs.
  private static let machineRequests = [
    ckvm_create_vm_request, ckvm_get_vcpu_mmap_size_request, ckvm_get_supported_cpuid_request,
    ckvm_get_msr_index_list_request, ckvm_get_api_version_request,
    ckvm_check_extension_request, ckvm_enable_cap_request, ckvm_create_vcpu_request,
    ckvm_set_tss_addr_request, ckvm_set_identity_map_addr_request, ckvm_create_irqchip_request,
    ckvm_create_pit2_request, ckvm_set_cpuid2_request, ckvm_get_cpuid2_request,
    ckvm_x86_setup_mce_request, ckvm_get_stats_fd_request, ckvm_get_clock_request,
    ckvm_set_clock_request, ckvm_get_pit2_request, ckvm_set_pit2_request,
    ckvm_get_irqchip_request, ckvm_set_irqchip_request, ckvm_get_tsc_khz_request,
    ckvm_set_tsc_khz_request, ckvm_kvmclock_ctrl_request, ckvm_create_device_request,
    ckvm_set_device_attr_request, ckvm_get_device_attr_request, ckvm_has_device_attr_request,
    ckvm_get_dirty_log_request, ckvm_clear_dirty_log_request, ckvm_reset_dirty_rings_request,
  ]

  /// What a VCPU's thread asks of its own VCPU, the account of a crash too.
  private static let vcpuRequests = [
    ckvm_run_request, ckvm_get_regs_request, ckvm_set_regs_request, ckvm_get_sregs_request,
    ckvm_set_sregs_request, ckvm_get_sregs2_request, ckvm_set_sregs2_request,
    ckvm_get_xsave_request, ckvm_get_xsave2_request,
    ckvm_set_xsave_request, ckvm_get_xcrs_request, ckvm_set_xcrs_request, ckvm_get_msrs_request,
    ckvm_set_msrs_request, ckvm_get_lapic_request, ckvm_set_lapic_request,
    ckvm_get_mp_state_request, ckvm_set_mp_state_request, ckvm_get_vcpu_events_request,
    ckvm_set_vcpu_events_request, ckvm_get_debugregs_request, ckvm_set_debugregs_request,
    ckvm_set_guest_debug_request, ckvm_translate_request, ckvm_interrupt_request,
    ckvm_nmi_request, ckvm_smi_request, ckvm_get_irqchip_request,
  ]

  /// What devices ask: interrupts, doorbells, memory that comes and goes, a network card's queues.
  private static let deviceRequests = [
    ckvm_irq_line_request, ckvm_irq_line_status_request, ckvm_signal_msi_request,
    ckvm_set_gsi_routing_request, ckvm_irqfd_request, ckvm_ioeventfd_request,
    ckvm_set_user_memory_region_request,
    UInt32(CLINUX_TUN_SET_QUEUE), UInt32(CLINUX_TUN_SET_OFFLOAD), UInt32(CLINUX_TUN_SET_HEADER),
  ]

  /// What a console that is a terminal is asked: by any thread, for a signal that ends the process may come
  /// on it, and its mode is put back first.
  private static let terminalRequests = [
    TCGETS, TCSETS, TCSETS + 1, TCSETS + 2, TIOCGWINSZ, TIOCGPGRP, FIONREAD,
  ].map { UInt32($0) }

  // MARK: Numbers that Swift can't import

  private static let executable: UInt32 = 4  // PROT_EXEC
  private static let emptyPath = 0x1000  // AT_EMPTY_PATH
  private static let duplicate: Int32 = 1030  // F_DUPFD_CLOEXEC
  private static let addSeals: Int32 = 1033  // F_ADD_SEALS
  private static let getSeals: Int32 = 1034  // F_GET_SEALS
  private static let clone3 = 435
  /// CLONE_VM, FS, FILES, SIGHAND, THREAD, SYSVSEM, SETTLS, PARENT_SETTID, CHILD_CLEARTID
  private static let threadFlags: UInt32 = 0x3D_0F00
}
