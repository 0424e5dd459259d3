/// The four rings of a guest: what its code sees of its own, and what it may do there.
struct GuestRings {
  /// What was seen in one.
  struct Row {
    let ring: Int
    /// The ring that MOV from CS tells; nil if that did not run.
    let told: Int?
    /// What became of CLI.
    let cli: ProbeOutcome
  }

  private(set) var rows: [Row] = []
  /// How many exceptions CLI raised in all.
  private(set) var exceptions = 0

  /// Tries each ring, with CLI so many times.
  init(rounds: Int) throws(LabError) {
    let code: [UInt8] = [
      0x8C, 0xC8,  //       00: mov eax,cs
      0x48, 0x89, 0x07,  // 02: mov [rdi],rax
      0xFA,  //             05: cli
      0xF4,  //             06: hlt
    ]
    for ring in Bench.Ring.allCases {
      let bench = try Bench(code, seconds: 5, what: "ring \(ring.rawValue)")
      var outcome = ProbeOutcome.nothing
      for _ in 0..<rounds {
        // No ring's number.
        try bench.store([.max], at: BenchLayout.scratch)
        try bench.start(at: BenchLayout.image, ring)
        outcome = try Self.outcome(bench)
        if outcome.isFault { exceptions += 1 }
      }
      let told = try bench.words(at: BenchLayout.scratch, 1)[0]
      rows.append(
        Row(ring: ring.rawValue, told: told == .max ? nil : Int(told & 3), cli: outcome))
    }
  }

  private static func outcome(_ bench: Bench) throws(LabError) -> ProbeOutcome {
    let exit = try bench.run()
    guard case .halt = exit else { return .other(exit.reason.name) }
    guard let exception = try bench.exception() else { return .nothing }
    return .fault(vector: exception.vector, error: exception.error)
  }
}
