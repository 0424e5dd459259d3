import KVM
import Memory

/// The translated units of one kernel, and how they lead to each other.
struct TranslationCache {
  /// A way from one unit to another.
  struct Edge: Hashable {
    let from: UInt64
    let to: UInt64
  }

  /// All units that were made, in that order, those that were dropped too.
  private(set) var units: [Translator.Unit] = []
  /// Ways that were gone, and whether the jump is in place of the callout now.
  private(set) var edges: [Edge: Bool] = [:]
  /// How often the kernel changed its code, and all was dropped.
  private(set) var drops = 0
  private let bench: Bench
  private let chains: Bool
  private let adaptsInputs: Bool
  private let translator: Translator
  private var places: [UInt64: UInt64] = [:]
  private var callouts: [UInt64: Translator.Callout] = [:]
  private var patched: Set<UInt64> = []
  private var free = Translator.Place.cache
  /// How often each IN called out.
  private var inputs: [UInt64: Int] = [:]
  /// How many of them were made loads.
  private(set) var loads = 0
  /// An IN that called out so often is made a load, if that is the same.
  static let often = 8

  init(_ bench: Bench, chains: Bool, hashesReturns: Bool, adaptsInputs: Bool) {
    self.bench = bench
    self.chains = chains
    self.adaptsInputs = adaptsInputs
    translator = Translator(hashesReturns: hashesReturns)
  }

  var byteCount: Int { units.reduce(0) { $0 + $1.code.count } }

  func callout(at place: UInt64) -> Translator.Callout? { callouts[place] }

  /// Where the translation of the code at `address` is; makes it if there is none.
  mutating func place(of address: UInt64) throws(LabError) -> UInt64 {
    if let place = places[address] { return place }
    let bench = bench
    let unit = try translator.unit(at: address, place: free) { address throws(LabError) in
      try KernelRun.instruction(bench, at: address)
    }
    let code = unit.code
    guard free + UInt64(code.count) + 16 <= Translator.Place.cacheEnd else {
      throw .unexpected("the translations have no room")
    }
    try write(code, at: free)
    for callout in unit.callouts { callouts[callout.place] = callout.callout }
    places[address] = free
    units.append(unit)
    free = (free + UInt64(code.count) + 15) & ~15
    return unit.place
  }

  private func write(_ code: [UInt8], at place: UInt64) throws(LabError) {
    try inMemory { () throws(GuestMemory.OutOfBounds) in
      try bench.memory.write(code.span, at: GuestAddress(place))
    }
  }

  /// Where the translation goes on that left at `site`, with the guest's code at `address`. What can be
  /// spared the next time is.
  mutating func place(after site: UInt64, at address: UInt64) throws(LabError) -> UInt64 {
    switch callouts[site] {
    case .instruction(let instruction):
      if case .in(let port) = instruction.kind {
        try adapt(site, port)
        return site + UInt64(Translator.loadInput(port).count)
      }
      let isEnding = instruction.kind == .halt || instruction.kind == .interruptReturn
      return try isEnding ? place(of: address) : site + 1
    case .goOn(_, let stays): return try goOn(site, at: address, isJump: chains && !stays)
    case .ret: return try goBack(site, to: address)
    case .interrupt, nil: return try place(of: address)
    }
  }

  private mutating func adapt(_ site: UInt64, _ port: UInt8) throws(LabError) {
    inputs[site, default: 0] += 1
    guard adaptsInputs, inputs[site] == Self.often, KernelRun.Port.isPlain(port) else { return }
    try write(Translator.loadInput(port), at: site)
    loads += 1
  }

  /// The callout at `site` goes on at `address`: from now on by a jump, if it may be one.
  private mutating func goOn(
    _ site: UInt64, at address: UInt64, isJump: Bool
  ) throws(LabError) -> UInt64 {
    let target = try place(of: address)
    note(site, address, isJump: isJump)
    if isJump {
      try write(Translator.jump(from: site, to: target), at: site)
      patched.insert(site)
    }
    return target
  }

  private mutating func note(_ site: UInt64, _ address: UInt64, isJump: Bool) {
    guard let unit = units.last(where: { $0.place <= site }) else { return }
    edges[Edge(from: unit.start, to: address)] = isJump
  }

  /// The guest returns to `address`, by the callout at `site`: the table knows next time.
  private mutating func goBack(_ site: UInt64, to address: UInt64) throws(LabError) -> UInt64 {
    let target = try place(of: address)
    note(site, address, isJump: translator.hashesReturns)
    guard translator.hashesReturns else { return target }
    let entry = (address & 0xFF) * 8
    try bench.store([address], at: UInt64(Translator.Place.returns) + entry)
    try bench.store([target], at: UInt64(Translator.Place.translatedReturns) + entry)
    return target
  }

  /// The kernel wrote to where its code is: does that, and drops what was translated of it. What runs
  /// just now stays until it leaves, so its places aren't used again.
  mutating func kernelWrote(_ access: Exit.MMIO) throws(LabError) {
    try write(
      (0..<access.width).map { UInt8(truncatingIfNeeded: access.data >> UInt64($0 * 8)) },
      at: access.address)
    let end = access.address + UInt64(access.width)
    let isTranslated = units.contains {
      places[$0.start] == $0.place && $0.start < end && access.address < $0.end
    }
    guard isTranslated else { return }
    drops += 1
    places = [:]
    for site in patched { try write(Translator.stub, at: site) }
    patched = []
    try bench.store([UInt64](repeating: 0, count: 256), at: UInt64(Translator.Place.returns))
  }
}
