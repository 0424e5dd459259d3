import Host
import TestSupport
import Testing

@testable import Lab

@Suite("The lab's experiments", .needsKVM, .limited)
struct ExperimentTests {
  @Test("modes: all trap in user mode and ring 3; in ring 0 three reach user space")
  func modes() throws {
    let report = try run("modes")
    let others = ["NOP", "ADD", "CPUID", "RDTSC", "SMSW"]
    let names = try Probe.Kit("modes").probes.map(\.name).filter { !others.contains($0) }
    #expect(names.count == 20)
    for name in names {
      #expect(try report.string("host/" + name) == "#GP(0)", "\(name)")
      #expect(try report.string("ring3/" + name) == "#GP(0)", "\(name)")
      #expect(try !report.string("ring0/" + name).hasPrefix("#"), "\(name)")
    }
    #expect(report.fact("ring0_to_user") == .list([.text("HLT"), .text("IN"), .text("OUT")]))
    if emulatesRing0 {
      #expect(try report.number("ring0_emulated") == 17)
      #expect(try report.number("ring0_silent") == 0)
    } else {
      #expect(try report.number("ring0_emulated") == 0)
      #expect(try report.string("ring0/CLI") == "runs")
      #expect(try report.string("ring0/MOV to CR3") == "runs")
      // With caches on, as a kernel has them.
      #expect(try report.string("ring0/MOV from CR0") == "runs")
      #expect(try report.string("ring0/MOV to CR0") == "runs")
      #expect(try report.string("ring0/RDMSR FS_BASE") == "runs")
      #expect(try report.string("ring0/RDMSR EFER") == "exit in KVM")
    }
  }

  @Test("modes: what isn't privileged, and what the guest's own CR0 and CR4 decide")
  func controls() throws {
    let report = try run("modes")
    #expect(try report.string("control/ring3/ADD") == "runs")
    #expect(try report.string("control/ring3/RDTSC") == "runs")
    if emulatesRing0 {
      // Ring 3 is under the host's CR4.
      #expect(try report.string("control/ring3/RDTSC with TSD") == "runs")
      #expect(
        try report.string("control/ring3/CPUID")
          == (HostFlags.hasCPUIDFaulting ? "exit in KVM" : "runs"))
    } else {
      #expect(try report.string("control/ring3/RDTSC with TSD") == "#GP(0)")
      #expect(try report.string("control/ring3/CPUID") == "exit in KVM")
      #expect(try report.string("control/ring0/CPUID") == "exit in KVM")
      #expect(try report.string("control/ring0/RDTSC with TSD") == "runs")
    }
    if report.backEnd?.name == "kvm_amd" {
      for name in ["MOV from CR0", "MOV to CR0", "SMSW"] {
        #expect(try report.string("control/ring0/\(name) with CD") == "exit in KVM")
      }
    }
  }

  @Test("critical: all but INT n run in ring 3; UMIP takes five away; POPF is silent")
  func critical() throws {
    let report = try run("critical")
    let others = ["NOP", "load", "store"]
    let names = try Probe.Kit("critical").probes.map(\.name).filter { !others.contains($0) }
    #expect(names.count == 20)
    let ofUMIP = ["SGDT", "SIDT", "SLDT", "STR", "SMSW"]
    #expect(report.fact("ring3_exceptions") == list(["INT n"]))
    // Without hardware's help UMIP is the host's, so its five leave for KVM unseen.
    let leaving = emulatesRing0 && HostFlags.hasUMIP ? ofUMIP : []
    #expect(report.fact("ring3_leaves") == list(leaving))
    #expect(
      report.fact("critical") == list(names.filter { $0 != "INT n" && !leaving.contains($0) }))
    #expect(try report.string("ring3/load") == "runs" && report.string("ring3/store") == "runs")
    if try report.flag("umip") {
      // Where KVM stands in for a processor without UMIP, it can't catch SMSW.
      for name in ofUMIP where name != "SMSW" {
        #expect(try report.string("ring3_umip/" + name) == "#GP(0)", "\(name)")
      }
      #expect(try report.string("ring3_umip/POPF") == "runs")
    } else {
      #expect(try report.string("ring3_umip/SGDT") == "n/a")
    }
    let silent = report.questions.first { $0.id == "popf-silent" }
    #expect(silent?.answer == .flag(true))
    if emulatesRing0 {
      #expect(try report.string("ring0/LAR") == "not in KVM's emulator")
      #expect(report.fact("leaks") == list(["MOV from CS", "PUSHF", "PUSH GS"]))
      #expect(try report.string("ring3/INT n") == "#UD")
    } else {
      #expect(report.fact("leaks") == list([]))
      #expect(try report.string("ring0/LAR") == "runs")
      #expect(try report.string("ring0/INT n") == "vector 129")
      #expect(report.fact("ring0_leaves") == list([]))
    }
  }

  @Test("exits: what reaches user space does so once each; what KVM handles never does")
  func exits() throws {
    let report = try run("exits")
    let toUser = [
      "RDMSR unknown", "OUT", "IN", "MMIO write", "MMIO read", "HLT", "HLT until interrupt",
    ]
    #expect(report.fact("to_user") == list(toUser))
    for name in toUser { #expect(try report.number("user/" + name) == 1, "\(name)") }
    #expect(try report.string("reasons/MMIO read") == "MMIO")
    // The first of 400 is left out.
    if report.times.areShown {
      for name in toUser { #expect(try report.number("run_samples/" + name) == 399, "\(name)") }
    }
    #expect(report.fact("run_samples/nothing") == nil)
    #expect(
      report.fact("in_kvm")
        == list(
          emulatesRing0
            ? [
              "RDTSC", "page fault of the guest", "CPUID", "RDMSR EFER", "first touch of a page",
            ] : ["CPUID", "RDMSR EFER", "first touch of a page"]))
    for name in ["nothing", "RDTSC", "page fault of the guest", "CPUID", "first touch of a page"] {
      #expect(try report.number("user/" + name) == 0, "\(name)")
    }
    if !emulatesRing0 {
      #expect(try report.string("place/CPUID") == "KVM")
      #expect(try report.string("place/first touch of a page") == "KVM")
      #expect(try report.string("place/nothing") == "nowhere")
    }
  }

  @Test(
    "whose times mean nothing have none, unless they are asked for and marked",
    arguments: ["exits", "tlb", "io-models"])
  func times(name: String) throws {
    let experiment = try #require(Experiment.named(name))
    func texts(_ times: HostTimes) throws -> (report: Report, text: String) {
      let report = try experiment.run(program: Kvmlite.path, times: times)
      return (report, TextReport.text(report))
    }
    let (silent, text) = try texts(HostTimes(maker: "a test"))
    for word in ["MB/s", "Cycles for one", "times as much", "An OUT took", "Spoiled"] {
      #expect(!text.contains(word), "\(word)")
    }
    #expect(!silent.facts.contains { $0.key.contains("cycles") || $0.key.contains("_ns/") })
    // The others' two runs are short.
    guard name != "io-models" else { return }
    let (marked, markedText) = try texts(HostTimes(maker: "a test", wasAsked: true))
    #expect(markedText.contains("[a test: these times mean nothing]"))
    #expect(marked.questions.map(\.id) == silent.questions.map(\.id))
  }

  @Test("exits: grades the guest of the exercise, and finds what is wrong with another")
  func exitsExercise() throws {
    let right: [UInt8] = [
      0xB9, 0x64, 0x00, 0x00, 0x00,  // 00: mov ecx,0x64
      0xE6, 0x80,  //                   05: out 0x80,al
      0xFF, 0xC9,  //                   07: dec ecx
      0x75, 0xFA,  //                   09: jne 0x5
      0xB9, 0x0A, 0x00, 0x00, 0x00,  // 0b: mov ecx,0xa
      0xBB, 0x00, 0x00, 0x00, 0x30,  // 10: mov ebx,0x30000000
      0x8B, 0x03,  //                   15: mov eax,[rbx]
      0xFF, 0xC9,  //                   17: dec ecx
      0x75, 0xFA,  //                   19: jne 0x15
      0xF4,  //                         1b: hlt
    ]
    let exits = try #require(Experiment.named("exits"))
    #expect(try exits.grade(guest: right)?.isPerfect == true)
    var wrong = right
    wrong[1] = 0x65
    let grade = try #require(try exits.grade(guest: wrong))
    #expect(grade.items.filter { !$0.isRight }.map(\.id) == ["outs"])
    // mov ebx,0x40000000; mov eax,[rbx]: nothing is mapped there
    let faulting = try exits.grade(guest: [0xBB, 0, 0, 0, 0x40, 0x8B, 0x03])
    #expect(faulting?.items.last?.seen == "exception #PF")
  }

  @Test(
    "exercises: a guest that never ends, or lies about its stack, gets a grade as any other",
    arguments: Experiment.all.filter { $0.exercise != nil }.map(\.name))
  func hostileGuests(name: String) throws {
    let experiment = try #require(Experiment.named(name))
    let guests: [(image: [UInt8], end: String)] = [
      ([0xEB, 0xFE], "not in time"),  // jmp to itself
      // mov rsp,-1; mov eax,0x6000; jmp rax: the stub of vector 0, without an exception
      (
        [0x48, 0xC7, 0xC4, 0xFF, 0xFF, 0xFF, 0xFF, 0xB8, 0, 0x60, 0, 0, 0xFF, 0xE0],
        "exception #DE"
      ),
    ]
    for guest in guests {
      let grade = try #require(try experiment.grade(guest: guest.image))
      #expect(!grade.isPerfect)
      #expect(grade.items.first { $0.id == "end" }?.seen == guest.end)
    }
  }

  @Test("two-stage: our walk, KVM's translation and what the guest wrote agree")
  func twoStage() throws {
    let report = try run("two-stage")
    #expect(try report.number("agree") == report.number("addresses"))
    #expect(try report.number("addresses") >= 3)
    #expect(try report.number("steps/4 KiB") == 4)
    #expect(try report.number("steps/2 MiB") == 3)
    #expect(try report.string("physical/4 KiB") == "0x345678")
    #expect(try report.string("physical/2 MiB") == "0x412345")
    #expect(try report.string("physical/nothing") == "none")
    #expect(try report.flag("proven/4 KiB") && report.flag("proven/2 MiB"))
    if report.fact("steps/1 GiB") != nil {
      #expect(try report.number("steps/1 GiB") == 2)
      #expect(try report.flag("proven/1 GiB"))
    }
    #expect(try report.number("nested_references") == 24)
    #expect(try report.number("nested_read/PD entry") == 15)
    // Where the kernel tells frames, they say whose is whose; the words say it everywhere.
    func words(_ key: String) -> Report.Fact? { report.fact("words/" + key) }
    #expect(words("apart") == list(["0x111", "0x111"]))
    #expect(words("clones") == list(["0x111", "0x111"]))
    #expect(words("after_write") == list(["0x111", "0x999"]))
    if report.fact("same_frame/apart") != .text("n/a") {
      #expect(try !report.flag("same_frame/apart"))
      #expect(try report.flag("same_frame/clones"))
      #expect(try !report.flag("same_frame/after_write"))
    }
    // hlt: nothing is mapped
    let experiment = try #require(Experiment.named("two-stage"))
    let grade = try #require(try experiment.grade(guest: [0xF4]))
    #expect(grade.points == 0)
    #expect(grade.items[1].seen == "a page fault in the PML4")
  }

  @Test("tlb: 24, 19 and 15 references; a stale entry lives until INVLPG")
  func tlb() throws {
    let report = try run("tlb")
    let sizes = [("4 KiB", "4 KiB", 24), ("2 MiB", "4 KiB", 19), ("4 KiB", "huge", 19)]
    for (guest, host, references) in sizes + [("2 MiB", "huge", 15)] {
      #expect(try report.number("references/guest \(guest), host \(host)") == references)
    }
    #expect(try report.number("levels/guest 4 KiB, host huge") == 4)
    #expect(try report.number("levels/guest 2 MiB, host huge") == 3)
    #expect(try report.flag("right_after_invlpg"))
    // Ring 3 runs on the processor everywhere; the emulator of ring 0 has no TLB.
    #expect(try report.number("stale/ring 3") > 0)
    if emulatesRing0 { #expect(try report.number("stale/ring 0") == 0) }
  }

  @Test("slots: what leaves, which pages were written, and a balloon that gives memory back")
  func slots() throws {
    let report = try run("slots")
    for (kind, exit) in [
      ("RAM read", "none"), ("RAM write", "none"), ("ROM read", "none"), ("ROM write", "MMIO"),
      ("hole read", "MMIO"), ("hole write", "MMIO"),
    ] { #expect(try report.string("exit/" + kind) == exit, "\(kind)") }
    #expect(try report.number("phases_right") == 12)
    #expect(try report.number("dirty_total") == 40 + 11 * 41)
    // VT-x keeps the log in the processor, the emulator in software; AMD-V takes a fault each.
    if report.backEnd?.name == "kvm_amd" {
      #expect(try report.number("exits_with_log") > report.number("exits_without_log"))
    }
    #expect(try report.number("resident/touched") - report.number("resident/start") == 2048 << 12)
    #expect(
      try report.number("resident/touched") - report.number("resident/ballooned") == 1536 << 12)
    #expect(try report.flag("ballooned_page_is_zero"))
    #expect(try report.number("balloon_exits") == 1536)
  }

  @Test("slots: counts the pages of a student's guest")
  func slotsExercise() throws {
    let right: [UInt8] = [
      0xBB, 0x00, 0x00, 0x10, 0x00,  // 00: mov ebx,0x100000
      0xB9, 0x0A, 0x00, 0x00, 0x00,  // 05: mov ecx,0xa
      0x88, 0x03,  //                   0a: mov [rbx],al
      0x81, 0xC3, 0x00, 0x10, 0, 0,  // 0c: add ebx,0x1000
      0xFF, 0xC9,  //                   12: dec ecx
      0x75, 0xF4,  //                   14: jne 0xa
      0xF4,  //                         16: hlt
    ]
    let slots = try #require(Experiment.named("slots"))
    #expect(try slots.grade(guest: right)?.isPerfect == true)
    #expect(try slots.grade(guest: [0xF4])?.points == 0)
  }

  @Test("shadow: agrees with the guest's tables under random changes; each reason is counted")
  func shadow() throws {
    let report = try run("shadow")
    #expect(try report.number("mismatches/shadow") == 0)
    #expect(try report.number("mismatches/own") == 0)
    #expect(try report.number("disagreements") == 0)
    #expect(try report.number("checks") == report.number("user_exits/shadow"))
    #expect(try report.number("table_writes") == report.number("stores"))
    #expect(try report.number("guest_faults") == report.number("model_faults"))
    #expect(try report.number("fills") > 50)
    // Every exit has a reason: a root is a write and a read of a port.
    let reasons = try ["table_writes", "fills", "upgrades", "guest_faults"].map(report.number)
    #expect(
      try report.number("user_exits/shadow")
        == reasons.reduce(0, +) + 2 * report.number("root_loads"))
    #expect(try report.number("user_exits/own") == 0)
    // Only a KVM that shadows our shadow has to be told.
    let isTwice = report.backEnd?.hasNestedPaging == false && !emulatesRing0
    #expect(try (report.number("flushes") > 0) == isTwice)
  }

  @Test("shadow: a kernel in ring 3 runs by trap and emulate, but for POPF")
  func deprivileged() throws {
    let kernel = try Deprivileged()
    #expect(
      kernel.traps.map(\.instruction) == [
        "CLI", "MOV RAX,CR3", "MOV CR3,RAX", "MOV RAX,CR3", "RDMSR EFER", "OUT 0xE9", "IN 0xE9",
        "STI", "HLT",
      ])
    #expect(kernel.results.prefix(4) == [0x99000, 0x123000, 0xD01, 0xE9])
    #expect(kernel.results[4] & 3 == 3)
    #expect(kernel.cpu.output == [UInt8(ascii: "!")])
    // It turned interrupts off by POPF, and nobody was told.
    #expect(kernel.cpu.interruptsAreOn)
  }

  @Test("cow: overlays hold what was written, the base nothing new, and no guest sees another's")
  func copyOnWrite() throws {
    let report = try run("cow")
    #expect(try report.flag("base_same"))
    for machine in ["A", "B", "C"] {
      #expect(try report.number("wrong_sectors/" + machine) == 0)
      #expect(try report.flag("owned_as_written/" + machine))
      #expect(try report.flag("saw_base/" + machine))
      #expect(try report.number("owned/" + machine) > 1)
    }
    #expect(try report.number("stored_bytes") < 3 * 4 << 20)
  }

  private func list(_ names: [String]) -> Report.Fact { .list(names.map { .text($0) }) }

  @Test("that never end are told to leave, and said to")
  func overdue() throws {
    // 10000: jmp 0x10000
    for seconds in 0...1 {
      let bench = try Bench([0xEB, 0xFE], seconds: seconds, what: "a loop")
      #expect(throws: LabError.self) { try bench.run() }
    }
  }

  @Test("that have to wait for a busy host lose no time by it")
  func waiting() throws {
    let alarm = try Alarm(seconds: 1) {}
    defer { alarm.cancel() }
    let end = Clock.monotonicNanoseconds + 1_200_000_000
    let poller = try Poller()
    while Clock.monotonicNanoseconds < end { _ = poller.next(milliseconds: 1300) }
    #expect(!alarm.isOver)
  }
}
