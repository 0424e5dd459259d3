import CLinux
import Glibc

/// The host's memory.
package enum HostMemory {
  /// How many bytes there are in all. Corresponds to `_SC_PHYS_PAGES` of `sysconf(3)`.
  package static func total() -> UInt64 {
    let pages = sysconf(Int32(_SC_PHYS_PAGES))
    let size = sysconf(Int32(_SC_PAGESIZE))
    return pages > 0 && size > 0 ? UInt64(pages) * UInt64(size) : 0
  }

  /// Has all threads of this program allocate from one place: for one whose threads are few. Another
  /// thread's own takes a while to make. Corresponds to `M_ARENA_MAX` of `mallopt(3)`.
  package static func useOneArena() { clinux_use_one_arena() }
}
