import TestSupport
import Testing

@testable import Lab

@Suite("The lab's experiments on I/O", .needsKVM, .limited)
struct IOTests {
  @Test("io-models: exits follow from the device, whatever the host")
  func ioModels() throws {
    let report = try run("io-models")
    #expect(try report.flag("same_bytes"))
    for batch in IOModels.batches {
      func exits(_ model: String) throws -> Int {
        #expect(try report.flag("steady/\(model)/\(batch)"), "\(model) \(batch)")
        return try report.number("device_exits/\(model)/\(batch)")
          + report.number("sleeps/\(model)/\(batch)")
      }
      let sectors = max(64, batch)
      let commands = sectors / batch
      #expect(try exits("UART") == 512)
      // Six registers a command; status, data and sleep a sector.
      #expect(try exits("IDE PIO") == 6 * commands + 3 * sectors)
      #expect(try exits("IDE DMA") == 13 * commands)
      #expect(try exits("virtio") == 3 * commands)
      #expect(try exits("virtio, ioeventfd") == 2 * commands)
      #expect(try exits("vhost-user") == 2 * commands)
      #expect(try report.number("doorbell_exits/virtio/\(batch)") == commands)
      for model in ["virtio, ioeventfd", "vhost-user"] {
        #expect(try report.number("doorbell_exits/\(model)/\(batch)") == 0)
        // KVM answers the doorbell, which leaves the guest all the same.
        #expect(try report.number("kvm_exits/\(model)/\(batch)") >= commands)
      }
    }
    #expect(try report.number("bytes_per_data_exit/UART") == 1)
    #expect(try report.number("bytes_per_data_exit/IDE PIO") == 512)
    let answers = Dictionary(uniqueKeysWithValues: report.questions.map { ($0.id, $0.answer) })
    #expect(answers["pio-4k"] == .number(30))
    #expect(answers["dma-4k"] == .number(13))
    #expect(answers["virtio-batch"] == .number(4))
    #expect(answers["ioeventfd-batch"] == .number(4))
    #expect(answers["no-doorbell"] == .set(["ioeventfd", "vhost-user"]))
  }

  @Test("split: the ring at each step, who has what, and who was woken")
  func split() throws {
    let report = try run("split")
    func each(_ key: String) -> Report.Fact? { report.fact(key) }
    func numbers(_ values: [Int]) -> Report.Fact { .list(values.map { .number($0) }) }
    #expect(each("available_index") == numbers([1, 1, 2, 2, 2, 2, 3, 3, 3]))
    #expect(each("used_index") == numbers([1, 1, 1, 1, 2, 2, 2, 2, 3]))
    #expect(each("kick") == numbers([0, 0, 0, 1, 1, 1, 1, 2, 2]))
    #expect(each("call") == numbers([0, 0, 0, 0, 1, 0, 0, 0, 1]))
    #expect(each("status") == numbers([0, 255, 255, 255, 0, 255, 255, 255, 0]))
    #expect(each("descriptor_flags") == numbers([1, 3, 2, 0]))
    #expect(try report.number("doorbell_exits") == 0)
    #expect(try report.number("used_length/read") == 513)
    #expect(try report.number("used_length/write") == 1)
    for key in ["data_is_sector_5", "sector_6_was_other", "sector_6_is_sector_5"] {
      #expect(try report.flag(key), "\(key)")
    }
    #expect(try report.flag("shares_memory"))
    #expect(try report.flag("vm/U") && !report.flag("image/U"))
    #expect(try report.flag("image/0") && !report.flag("vm/0"))
    #expect(try report.number("read_by_domain_0") >= 512)
    #expect(try report.number("written_by_domain_0") >= 512)
    #expect(try report.string("back_end_says").contains("3 requests"))
  }

  @Test("split: without a program for the back end it says which one it wanted")
  func noProgram() throws {
    let split = try #require(Experiment.named("split"))
    #expect {
      _ = try split.run(program: "/nowhere/kvmlite")
    } throws: {
      "\($0)".contains("/nowhere/kvmlite")
    }
  }
}
