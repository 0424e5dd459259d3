import Boot
import Machine
import TestSupport
import Testing

@Suite("A machine is refused", .limited)
struct RefusalTests {
  private func refusal(_ change: (inout Setup) -> Void) -> MachineError? {
    var setup = Setup(TestGuest.halt)
    change(&setup)
    return #expect(throws: MachineError.self) { _ = try setup.makeMachine() }
  }

  private func isAboutConfiguration(_ error: MachineError?) -> Bool {
    if case .configuration = error { true } else { false }
  }

  private func isAboutImage(_ error: MachineError?) -> Bool {
    if case .boot = error { true } else { false }
  }

  @Test("for sizes, counts and times that can't be")
  func configuration() {
    for size: UInt64 in [0, 1, 4095, 4097, .max, 1 << 47] {
      #expect(isAboutConfiguration(refusal { $0.memorySize = size }), "\(size)")
    }
    for count in [0, -1, Int.min] {
      #expect(isAboutConfiguration(refusal { $0.vcpuCount = count }), "\(count)")
    }
    for time in [0, -1, .nan, .infinity, 1e300] {
      #expect(isAboutConfiguration(refusal { $0.timeLimit = time }), "\(time)")
    }
  }

  @Test("for more VCPUs than KVM has", .needsKVM)
  func tooManyVCPUs() {
    let refusal = refusal { $0.vcpuCount = 1_000_000 }
    #expect(isAboutConfiguration(refusal))
    #expect(refusal?.description.contains("1000000 VCPUs are too many") == true)
  }

  @Test("for an image that can't be, on any machine")
  func image() {
    #expect(isAboutImage(refusal { $0.resources.image?.bytes = [] }))
    #expect(isAboutImage(refusal { $0.resources.image?.bytes = [0x7F, 0x45, 0x4C, 0x46] }))
  }
}
