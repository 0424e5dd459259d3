import KVM
import TestSupport
import Testing

@Suite("The host's KVM", .needsKVM, .limited)
struct SystemTests {
  @Test("speaks version 12 of the API and can what a machine needs")
  func capabilities() throws {
    let system = try System()
    #expect(try system.version() == 12)
    for needed: Capability in [.userMemory, .irqchip, .pit2, .immediateExit] {
      #expect(system.value(of: needed) > 0, "\(needed)")
    }
    #expect(system.value(of: .maximumVCPUs) >= system.value(of: .recommendedVCPUs))
    #expect(system.value(of: .recommendedVCPUs) >= 1)
    #expect(system.value(of: .memorySlots) >= 32)
    #expect(system.value(of: Capability(100_000)) == 0)
  }

  @Test("names the processor in CPUID")
  func cpuid() throws {
    let cpuid = try System().supportedCPUID()
    let vendor = try #require(cpuid.entry(0))
    let letters = [vendor.ebx, vendor.edx, vendor.ecx].flatMap { word in
      (0..<4).map { UInt8(truncatingIfNeeded: word >> ($0 * 8)) }
    }
    #expect(["GenuineIntel", "AuthenticAMD"].contains(String(decoding: letters, as: UTF8.self)))
    let longMode: UInt32 = 1 << 29
    #expect(try #require(cpuid.entry(0x8000_0001)).edx & longMode != 0)
    #expect(cpuid.entry(0x1234_5678) == nil)
  }

  @Test("lists the MSRs that it keeps")
  func msrIndices() throws {
    let indices = try System().msrIndices()
    let timeStampCounter: UInt32 = 0x10
    let systemEnterCS: UInt32 = 0x174
    #expect(indices.contains(timeStampCounter))
    #expect(indices.contains(systemEnterCS))
    #expect(Set(indices).count == indices.count)
  }

  @Test("is missing, or is no KVM, with the reason")
  func trouble() throws {
    let error = #expect(throws: KVMError.self) { _ = try System(path: "/dev/no-such-device") }
    #expect(error?.errno == .noSuchFile)
    #expect(error?.description == "open: No such file or directory (ENOENT)")
    let other = #expect(throws: KVMError.self) { _ = try System(path: "/dev/null").version() }
    #expect(other?.description.hasPrefix("KVM_GET_API_VERSION: ") == true)
  }
}
