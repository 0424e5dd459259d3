/// Holds the lab's binary translation against ring 0 on this host's KVM, and lets the translator loose on
/// any bytes.
///
/// The input: a byte that chooses; then code to translate, or choices that make a program
/// (Tests/LabTests/RandomProgram.swift). Without /dev/kvm the translator alone is tried.
@_cdecl("LLVMFuzzerTestOneInput")
public func translationFuzz(_ start: UnsafePointer<UInt8>, _ count: Int) -> CInt {
  let input = unsafe [UInt8](UnsafeBufferPointer(start: start, count: count))
  guard let first = input.first else { return 0 }
  if first & 7 == 0 || !hasKVM { translate(Array(input.dropFirst())) } else { compare(input) }
  return 0
}

private let hasKVM: Bool = {
  do {
    _ = try Bench([0xF4])
    return true
  } catch { return false }
}()

/// Whatever the code is, a translation is inside itself, leaves by HLTs, and covers what was read.
private func translate(_ code: [UInt8]) {
  for hashesReturns in [false, true] {
    let translator = Translator(hashesReturns: hashesReturns)
    let unit: Translator.Unit
    do throws(GuestInstruction.Unknown) {
      unit = try translator.unit(at: 0x1_0000, place: 0x40_0000) {
        address throws(GuestInstruction.Unknown) in
        try GuestInstruction(Array(code.dropFirst(Int(address - 0x1_0000)).prefix(15)), at: address)
      }
    } catch { return }
    precondition(unit.pieces.count <= Translator.longest && unit.guestBytes <= code.count)
    precondition(unit.end == unit.start + UInt64(unit.guestBytes))
    let made = unit.code
    for callout in unit.callouts {
      let offset = Int(callout.place - unit.place)
      precondition(offset < made.count && made[offset] == 0xF4, "a callout that is no HLT")
      if case .goOn = callout.callout {
        precondition(Array(made[offset...].prefix(5)) == Translator.stub, "no room for a jump")
      }
    }
  }
}

/// A program does translated, in all ways, what it does in ring 0.
private func compare(_ input: [UInt8]) {
  var position = 1
  let program = RandomProgram(steps: 1 + Int(input[0]) / 4) { count in
    defer { position += 1 }
    // Behind the input's end the choices go on, so that a short one is a program, too.
    return Int(position < input.count ? input[position] : UInt8(position & 0xFF) &* 37) % count
  }
  func outcome(_ way: KernelRun.Way) -> KernelRun.Outcome {
    do throws(LabError) {
      return try KernelRun(
        program.bytes, entry: BenchLayout.image + program.entry, rounds: 10,
        handler: BenchLayout.image, way
      ).outcome
    } catch { fatalError("\(way.rawValue): \(error)") }
  }
  let truth = outcome(.ring0)
  for way in KernelRun.Way.allCases where way.isTranslated {
    let other = outcome(way)
    precondition(other == truth, "\(way.rawValue): \(other), in ring 0: \(truth)")
  }
}
