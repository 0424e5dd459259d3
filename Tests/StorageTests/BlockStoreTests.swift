import Storage
import TestSupport
import Testing

@Suite("Block stores", .limited)
struct BlockStoreTests {
  @Test("an error says what happened")
  func words() {
    #expect(StorageError.outOfRange.description == "beyond the end of the disk")
    #expect(StorageError.corrupt("no L1 table").description.contains("no L1 table"))
  }
}
