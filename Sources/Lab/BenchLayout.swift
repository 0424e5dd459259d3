/// Where the parts of a bench are in guest-physical memory, and in linear memory too.
enum BenchLayout {
  /// PML4, PDPT and page directory: the first GiB, each address to itself, 2 MiB pages, for all rings.
  static let pageTables: UInt64 = 0x1000
  /// Null, code 0x08, data 0x10, ring-3 data 0x18, ring-3 code 0x20, TSS 0x28.
  static let descriptorTable: UInt64 = 0x4000
  /// A 64-bit TSS without a map of ports.
  static let taskState: UInt64 = 0x4100
  /// 256 gates that only ring 0 may call by INT.
  static let interruptTable: UInt64 = 0x5000
  /// For each vector a HLT: where it leaves the guest says which exception came.
  static let stubs: UInt64 = 0x6000
  /// Memory that guests leave results in.
  static let scratch: UInt64 = 0x8000
  /// The stack that exceptions from ring 3 go to, growing down.
  static let exceptionStack: UInt64 = 0xB000
  /// The guest's stack, growing down.
  static let stack: UInt64 = 0xF000
  /// The guest's image.
  static let image: UInt64 = 0x10000

  /// Bytes between two stubs.
  static let stubSize: UInt64 = 16
  /// Selector of the TSS.
  static let taskSelector: UInt16 = 0x28

  /// Whether the processor pushes an error code for the exception (Intel SDM vol 3, "Exception and
  /// Interrupt Vectors").
  static func hasErrorCode(_ vector: UInt8) -> Bool {
    [8, 10, 11, 12, 13, 14, 17, 21].contains(vector)
  }
}

/// An exception as the guest's stack has it.
struct GuestException: Equatable, Sendable {
  /// Its number.
  let vector: UInt8
  /// Its error code; 0 where it has none.
  let error: UInt64
  /// Where it happened.
  let instructionPointer: UInt64

  /// Its short name, such as `#GP`.
  var name: String { Self.name(of: vector) }

  /// The short name of an exception (Intel SDM vol 3, "Exception and Interrupt Vectors").
  static func name(of vector: UInt8) -> String {
    let names = [
      "#DE", "#DB", "NMI", "#BP", "#OF", "#BR", "#UD", "#NM", "#DF", "vector 9", "#TS", "#NP",
      "#SS", "#GP", "#PF", "vector 15", "#MF", "#AC", "#MC", "#XM", "#VE", "#CP",
    ]
    return Int(vector) < names.count ? names[Int(vector)] : "vector \(vector)"
  }
}
