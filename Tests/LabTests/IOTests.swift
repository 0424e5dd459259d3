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

  @Test("stack: the same bytes and the same identity in each combination, and a request's way down")
  func stack() throws {
    let report = try run("stack")
    #expect(try report.flag("one_checksum"))
    #expect(try report.flag("one_identity"))
    // Six registers a command; status, data and sleep a sector. A request sleeps, and takes its interrupt
    // back.
    #expect(try report.number("exits/IDE") == 6 + 3 * 256)
    for device in ["virtio-mmio", "virtio-pci", "vhost-user"] {
      #expect(try report.number("exits/\(device)") == 2)
    }
    let device = try report.string("block device")
    #expect(device == "a loop device" || device.hasPrefix("n/a: "))
    let disks = ["raw file", "overlay", "overlay, other cluster", "vhost-user"]
    for disk in disks + (device.hasPrefix("n/a") ? [] : ["block device"]) {
      #expect(try report.flag("same_bytes/\(disk)"), "\(disk)")
      guard !disk.hasPrefix("overlay") else { continue }
      #expect(try report.number("file_offset/\(disk)") == 75 * 512)
    }
    // Sector 75 is in cluster 2 of 16 KiB, and each second one is the overlay's own.
    #expect(try report.number("cluster") == 2)
    #expect(try report.string("image/overlay") == "base")
    #expect(try report.string("image/overlay, other cluster") == "overlay")
    #expect(try report.number("file_offset/overlay") == 75 * 512)
    #expect(try report.number("disk_offset/overlay, other cluster") == (75 ^ 32) * 512)
    #expect(try report.number("pci/absent") == 30)
    #expect(try report.number("pci/range") == 0x4000)
  }

  @Test("stack: a driver's search is told as what it was")
  func search() {
    func access(_ place: UInt64, _ value: UInt64, isWrite: Bool = false) -> IOBench.Access {
      .init(place: place, isWrite: isWrite, value: value)
    }
    func at(_ register: UInt64, _ value: UInt64, isWrite: Bool = false) -> [IOBench.Access] {
      [
        access(0xCF8, 1 << 31 | 2 << 11 | register, isWrite: true),
        access(0xCFC, value, isWrite: isWrite),
      ]
    }
    let search = PCISearch(
      at(0, 0x1042_1AF4) + at(0x14, 0xFFFF_FFFF, isWrite: true) + at(0x14, 0xFFFF_F000)
        + at(0x14, 0x3100_0000, isWrite: true) + at(0x34, 0x40) + at(0x40, 0x0110_0009)
        + at(0x44, 4) + at(0x48, 0x3000) + at(0, 0xFFFF_FFFF))
    #expect(search.absent == 1 && search.sizes == [0x14: 4096])
    #expect(
      search.steps.map(\.meaning) == [
        "vendor 0x1af4, device 0x1042", "range 1: how large?", "0x1000 bytes of memory",
        "range 1 is put at 0x31000000", "the first capability is at 0x40",
        "virtio's common configuration, the last one", "it's about range 4", "0x3000 in that range",
      ])
    #expect(search.steps[0].function == "00:02.0")
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
