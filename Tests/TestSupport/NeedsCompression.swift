import Foundation
import Host
import Testing

extension Trait where Self == ConditionTrait {
  /// Skips a test that reads compressed clusters where zlib and Zstandard aren't built in, unless
  /// KVMLITE_REQUIRE_COMPRESSION is set.
  package static var needsCompression: Self {
    let isRequired = ProcessInfo.processInfo.environment["KVMLITE_REQUIRE_COMPRESSION"] != nil
    return .enabled(
      if: Decompression.lack == nil || isRequired, "\(Decompression.lack ?? "it is built in")")
  }
}
