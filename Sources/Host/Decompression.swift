#if CompressedDisks
  import CZlib
  import CZstd
#endif

/// Decompresses bytes with the host's libraries, where the package trait CompressedDisks has them in.
package enum Decompression {
  /// What this build lacks, and how to have it; nil if it lacks nothing.
  package static var lack: String? {
    #if CompressedDisks
      nil
    #else
      """
      built without zlib and zstd (with them: install zlib1g-dev and libzstd-dev, then \
      scripts/build-release, or swift build --traits CompressedDisks)
      """
    #endif
  }

  /// The `count` bytes that a raw deflate stream at the start of `bytes` begins with; nil if it has
  /// fewer or is none. Corresponds to zlib's `inflate`.
  package static func inflate(_ bytes: Span<UInt8>, count: Int) -> [UInt8]? {
    #if CompressedDisks
      unsafe run(bytes, count) { unsafe czlib_inflate($0, UInt32($1), $2, UInt32($3)) }
    #else
      nil
    #endif
  }

  /// The `count` bytes that Zstandard frames at the start of `bytes` begin with; nil if they have
  /// fewer or are none. Corresponds to `ZSTD_decompressStream`.
  package static func zstandard(_ bytes: Span<UInt8>, count: Int) -> [UInt8]? {
    #if CompressedDisks
      unsafe run(bytes, count) { unsafe czstd_decompress($0, $1, $2, $3) }
    #else
      nil
    #endif
  }

  private static func run(
    _ bytes: Span<UInt8>, _ count: Int,
    _ body: (UnsafeRawPointer?, Int, UnsafeMutableRawPointer?, Int) -> Int32
  ) -> [UInt8]? {
    guard bytes.count < 1 << 30, count >= 0, count < 1 << 30 else { return nil }
    var result = [UInt8](repeating: 0, count: count)
    // The libraries stay within both lengths.
    let failure = unsafe result.withUnsafeMutableBytes { target in
      unsafe bytes.withUnsafeBytes { source in
        unsafe body(source.baseAddress, source.count, target.baseAddress, target.count)
      }
    }
    return failure == 0 ? result : nil
  }
}
