import CKVM
import Host

/// One virtual processor: runs the guest and says why it stopped.
///
/// Only one thread at a time calls its methods, the one that runs it or one that knows it is paused;
/// `requestExit()` alone may come from any thread at any time.
package final class VCPU: @unchecked Sendable {
  // Sound as Sendable under the rule above: the kernel serialises the ioctls, and of the shared page
  // another thread touches nothing but immediate_exit, which is atomic.

  /// Its number and APIC ID, from 0.
  package let id: Int
  let descriptor: FileDescriptor
  private let page: Mapping
  // The kernel's VM lives as long as this one's files: so does ours, to be the last that goes.
  private let vm: VM

  // The page is mapped for as long as the VCPU exists and starts with a struct kvm_run.
  private var shared: UnsafeMutablePointer<kvm_run> {
    @inline(__always) get { unsafe page.base.assumingMemoryBound(to: kvm_run.self) }
  }

  init(_ descriptor: consuming FileDescriptor, _ page: Mapping, id: Int, of vm: VM) {
    self.vm = vm
    self.descriptor = descriptor
    self.page = page
    self.id = id
  }

  // MARK: Running

  /// Runs the guest until something needs kvmlite. Corresponds to `KVM_RUN`.
  ///
  /// A signal gives `.interrupted`; whether to go on is the caller's decision. Throws what the
  /// kernel says otherwise.
  package func run() throws(KVMError) -> Exit {
    if ckvm_run(descriptor.number) < 0 {
      let error = Errno.current
      if error == .interrupted || error == .tryAgain { return .interrupted }
      // Newer kernels explain an access that the host could not back.
      if error == .badAddress, unsafe shared.pointee.exit_reason == ExitReason.memoryFault.number {
        return .memoryFault
      }
      throw KVMError("KVM_RUN", error)
    }
    return exit()
  }

  private func exit() -> Exit {
    switch unsafe Int32(bitPattern: shared.pointee.exit_reason) {
    case KVM_EXIT_IO: portIO()
    case KVM_EXIT_MMIO: mmio()
    case KVM_EXIT_HLT: .halt
    case KVM_EXIT_INTR: .interrupted
    case KVM_EXIT_SHUTDOWN: .shutdown
    case KVM_EXIT_IRQ_WINDOW_OPEN: .interruptWindow
    case KVM_EXIT_DEBUG: .debug
    case KVM_EXIT_SYSTEM_EVENT: unsafe .systemEvent(shared.pointee.system_event.type)
    case KVM_EXIT_FAIL_ENTRY:
      unsafe .failedEntry(
        hardwareReason: shared.pointee.fail_entry.hardware_entry_failure_reason)
    case KVM_EXIT_INTERNAL_ERROR: unsafe .internalError(suberror: shared.pointee.internal.suberror)
    case KVM_EXIT_X86_RDMSR: unsafe .msrAccess(index: shared.pointee.msr.index, isWrite: false)
    case KVM_EXIT_X86_WRMSR: unsafe .msrAccess(index: shared.pointee.msr.index, isWrite: true)
    default: unsafe .other(ExitReason(shared.pointee.exit_reason))
    }
  }

  private func portIO() -> Exit {
    let io = unsafe shared.pointee.io
    let width = Int(io.size)
    let count = Int(io.count)
    let offset = Int(truncatingIfNeeded: io.data_offset)
    // The kernel keeps to the page; all later accesses rely on it.
    precondition(
      offset >= 0 && offset <= page.count && width * count <= page.count - offset,
      "KVM_EXIT_IO with data outside the shared page")
    return .portIO(
      Exit.PortIO(
        port: io.port, width: width, isWrite: io.direction == UInt8(KVM_EXIT_IO_OUT), count: count,
        dataOffset: offset))
  }

  private func mmio() -> Exit {
    let mmio = unsafe shared.pointee.mmio
    let data = unsafe withUnsafeBytes(of: mmio.data) { unsafe $0.load(as: UInt64.self) }
    let width = min(max(Int(mmio.len), 1), 8)
    let mask = width == 8 ? UInt64.max : (1 << UInt64(width * 8)) - 1
    return .mmio(
      Exit.MMIO(
        address: mmio.phys_addr, width: width, isWrite: mmio.is_write != 0, data: data & mask))
  }

  /// Makes the run that is under way, or the next one, return `.interrupted`, if the VCPU's thread is
  /// sent `Signal.kick` too. May be called from any thread. Corresponds to `immediate_exit`.
  package func requestExit() { unsafe ckvm_set_immediate_exit(shared, 1) }

  /// Takes `requestExit()` back, so that the next run goes on.
  package func clearExitRequest() {
    unsafe ckvm_set_immediate_exit(shared, 0)
  }

  // MARK: An exit's data

  /// What the guest wrote in access `index` of `io`, from 0 to its count less one.
  @inline(__always)
  package func value(of io: Exit.PortIO, _ index: Int) -> UInt64 {
    precondition(index >= 0 && index < io.count)
    // portIO() has checked that `count` accesses of `width` bytes are inside the page.
    let data = unsafe page.base + (io.dataOffset + index * io.width)
    return switch io.width {
    case 1: unsafe UInt64(data.load(as: UInt8.self))
    case 2: unsafe UInt64(data.loadUnaligned(as: UInt16.self))
    default: unsafe UInt64(data.loadUnaligned(as: UInt32.self))
    }
  }

  /// Answers access `index` of `io`, from 0 to its count less one, with the low bytes of `value`.
  @inline(__always)
  package func setValue(_ value: UInt64, of io: Exit.PortIO, _ index: Int) {
    precondition(index >= 0 && index < io.count)
    // portIO() has checked that `count` accesses of `width` bytes are inside the page.
    let data = unsafe page.base + (io.dataOffset + index * io.width)
    switch io.width {
    case 1: unsafe data.storeBytes(of: UInt8(truncatingIfNeeded: value), as: UInt8.self)
    case 2: unsafe data.storeBytes(of: UInt16(truncatingIfNeeded: value), as: UInt16.self)
    default: unsafe data.storeBytes(of: UInt32(truncatingIfNeeded: value), as: UInt32.self)
    }
  }

  /// Hands the bytes of a repeated write to `body` in one piece.
  @inline(__always)
  package func withBytes(of io: Exit.PortIO, _ body: (Span<UInt8>) -> Void) {
    // portIO() has checked that `count` accesses of `width` bytes are inside the page, which nobody
    // else writes before the next run.
    let start = unsafe (page.base + io.dataOffset).assumingMemoryBound(to: UInt8.self)
    let bytes = unsafe UnsafeBufferPointer(start: start, count: io.count * io.width)
    unsafe body(bytes.span)
  }

  /// Lets `body` answer a repeated read in one piece.
  @inline(__always)
  package func withMutableBytes(of io: Exit.PortIO, _ body: (inout MutableSpan<UInt8>) -> Void) {
    // portIO() has checked that `count` accesses of `width` bytes are inside the page, which nobody
    // else reads before the next run.
    let start = unsafe (page.base + io.dataOffset).assumingMemoryBound(to: UInt8.self)
    let bytes = unsafe UnsafeMutableBufferPointer(start: start, count: io.count * io.width)
    var span = unsafe bytes.mutableSpan
    body(&span)
  }

  /// Answers the read of the last `.mmio` exit with `value`, little-endian.
  package func setMMIOData(_ value: UInt64) {
    // The field is eight bytes of the shared page.
    unsafe withUnsafeMutableBytes(of: &shared.pointee.mmio.data) {
      unsafe $0.storeBytes(of: value, as: UInt64.self)
    }
  }

  /// Makes runs return `.interruptWindow` as soon as the guest can take an interrupt (or no longer).
  /// Corresponds to `request_interrupt_window`.
  package func setWantsInterruptWindow(_ isOn: Bool) {
    unsafe shared.pointee.request_interrupt_window = isOn ? 1 : 0
  }

  /// Whether RFLAGS.IF was set at the last exit. Corresponds to `if_flag` of `struct kvm_run`.
  package var interruptsAreOn: Bool { unsafe shared.pointee.if_flag != 0 }

  /// The words that come with `.internalError`; how many and what they mean depends on its suberror.
  package func internalErrorData() -> [UInt64] {
    let count = unsafe min(shared.pointee.internal.ndata, 16)
    return (0..<count).map { unsafe ckvm_internal_data(shared, $0) }
  }

  // MARK: Registers at an exit

  /// Makes KVM leave the general registers in the shared page at each exit (or no longer), so that
  /// reading `instructionPointer` costs no ioctl. Needs `KVM_CAP_SYNC_REGS`.
  package func setSynchronizesRegisters(_ isOn: Bool) {
    unsafe shared.pointee.kvm_valid_regs = isOn ? UInt64(KVM_SYNC_X86_REGS) : 0
  }

  /// RIP at the last exit, if `setSynchronizesRegisters(true)` came before it.
  package var instructionPointer: UInt64 {
    @inline(__always) get { unsafe shared.pointee.s.regs.regs.rip }
  }

  /// The kernel's counters of this VCPU. Corresponds to `KVM_GET_STATS_FD` on a VCPU.
  package func statistics() throws(KVMError) -> Statistics {
    try Statistics(check("KVM_GET_STATS_FD", ckvm_get_stats_fd(descriptor.number)), of: vm)
  }
}
