import CLinux
import Glibc

/// The host's clocks, as plain numbers.
package enum Clock {
  /// Nanoseconds of `CLOCK_MONOTONIC`, which never goes back. Corresponds to `clock_gettime(2)`.
  @inline(__always)
  package static var monotonicNanoseconds: UInt64 {
    var time = timespec()
    // The C library writes one timespec; this clock can't fail.
    unsafe clock_gettime(CLOCK_MONOTONIC, &time)
    return UInt64(time.tv_sec) &* 1_000_000_000 &+ UInt64(time.tv_nsec)
  }

  /// Nanoseconds of processor time that all threads of this process took, in the guest too.
  /// Corresponds to `CLOCK_PROCESS_CPUTIME_ID`.
  package static var processorNanoseconds: UInt64 {
    var time = timespec()
    // As above.
    unsafe clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time)
    return UInt64(time.tv_sec) &* 1_000_000_000 &+ UInt64(time.tv_nsec)
  }

  /// Nanoseconds since 1970 in UTC, by `CLOCK_REALTIME`. Corresponds to `clock_gettime(2)`.
  package static var realtimeNanoseconds: Int64 {
    var time = timespec()
    // The C library writes one timespec; this clock can't fail.
    unsafe clock_gettime(CLOCK_REALTIME, &time)
    return Int64(time.tv_sec) &* 1_000_000_000 &+ Int64(time.tv_nsec)
  }

  /// Waits until `monotonicNanoseconds` comes to `time`, or a signal comes. Corresponds to
  /// `clock_nanosleep(2)`.
  package static func wait(until time: UInt64) {
    var end = timespec(
      tv_sec: Int(clamping: time / 1_000_000_000), tv_nsec: Int(time % 1_000_000_000))
    // The C library reads one timespec.
    _ = unsafe clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &end, nil)
  }

  /// The processor's time-stamp counter, in cycles of its base clock. Corresponds to `RDTSC`.
  @inline(__always)
  package static var cycles: UInt64 { clinux_cycles() }
}
