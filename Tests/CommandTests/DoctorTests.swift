import Foundation
import Host
import TestSupport
import Testing

@Suite("kvmlite doctor", .limited)
struct DoctorTests {
  /// Runs a command in a mount namespace of its own, where `mount` has been done.
  private static func mounting(_ mount: String) -> [String] {
    ["unshare", "-m", "sh", "-c", mount + " && exec \"$@\"", "sh"]
  }

  @Test("says what this host can do, and that it can", .needsKVM)
  func usable() throws {
    let result = try Kvmlite.run("doctor")
    #expect(result.end == .exited(0))
    #expect(result.output.hasPrefix("yes"))
    #expect(result.errors == "")
    if HostKVM.isPVM { #expect(result.output.contains("kvm_pvm")) }
    let json = try JSONSerialization.jsonObject(
      with: Data(Kvmlite.run("doctor", "--json").output.utf8))
    #expect((json as? [String: Any])?["usable"] as? Bool == true)
  }

  /// Hosts that lack a layer of the sandbox, and which.
  static let lacking: [(wrapper: [String], lacks: Set<String>)] = [
    // Root of a user namespace in which nobody else is, and that has no room for one of files.
    (
      [
        "unshare", "--user", "--map-root-user", "sh", "-c",
        "echo 0 >/proc/sys/user/max_mnt_namespaces && exec \"$@\"", "sh",
      ], ["namespace_of_files", "user"]
    ),
    // A container whose own filter refuses seccomp(2).
    (
      [
        "/usr/bin/python3", "-c",
        """
        import ctypes, os, struct, sys
        steps = (0x20, 0, 0, 0), (0x15, 0, 1, 317), (0x06, 0, 0, 0x50001), (0x06, 0, 0, 0x7FFF0000)
        code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in steps))
        libc = ctypes.CDLL(None)
        assert libc.prctl(38, 1, 0, 0, 0) == 0
        assert libc.prctl(22, 2, struct.pack("HxxxxxxQ", len(steps), ctypes.addressof(code))) == 0
        os.execvp(sys.argv[1], sys.argv[1:])
        """,
      ], ["system_calls"]
    ),
  ]
  static let canLack = lacking.allSatisfy {
    (try? ChildProcess($0.wrapper[0], $0.wrapper.dropFirst() + ["true"]).waitForEnd())
      == .exited(0)
  }

  /// What doctor says of each layer: whether it is there, or nil if there is no need.
  private func layers(_ wrapper: [String]) throws -> [String: Bool?] {
    let result = try Kvmlite.run(["doctor", "--json"], by: wrapper)
    let json = try JSONSerialization.jsonObject(with: Data(result.output.utf8)) as? [String: Any]
    let sandbox = try #require(json?["sandbox"] as? [String: [String: Any]])
    for layer in sandbox.values {
      #expect((layer["there"] as? Bool == false) == (layer["why"] is String), "\(layer)")
    }
    return sandbox.mapValues { $0["there"] as? Bool }
  }

  @Test("says which layers the sandbox has here, as a run in it does", .needsKVM)
  func sandbox() throws {
    let layers = try layers(["env"])
    #expect(layers.count == 18)
    let run = try Kvmlite.run("--verbose", "guest:hello-real")
    var count = 0
    for line in run.errors.split(separator: "\n") {
      // A user's number, and Landlock's version.
      let name = line.prefix(30).lowercased().trimmingCharacters(in: .whitespaces)
        .replacing(/\ [0-9]+$/, with: "").replacing(" ", with: "_")
      guard let isThere = layers[name] else { continue }
      #expect(isThere == line.hasSuffix(" yes"), "\(line)")
      count += 1
    }
    #expect(count >= 11, "\(run.errors)")
  }

  @Test(
    "says which layers are missing, and so does a run where the others don't make up for them",
    .needsKVM, .needsRoot, .enabled(if: canLack, "needs python3 and user namespaces"),
    arguments: 0..<lacking.count)
  func lacks(index: Int) throws {
    let (wrapper, lacks) = Self.lacking[index]
    let (here, there) = try (layers(["env"]), layers(wrapper))
    #expect(there == here.merging(lacks.map { ($0, false) }) { $1 })
    let doctor = try Kvmlite.run(["doctor"], by: wrapper)
    #expect(doctor.end == .exited(0))
    #expect(doctor.output.components(separatedBy: "the rest still stands").count > lacks.count)
    let run = try Kvmlite.run(["guest:hello-real"], by: wrapper)
    #expect(run.end == .exited(0))
    #expect(run.output.contains("Hello"))
    let lines = run.errors.split(separator: "\n")
    #expect(lines.count == 1)
    #expect(
      run.errors.contains(
        /the sandbox lacks a layer, (user [0-9]+|system calls): .*; the rest stands/),
      "\(run.errors)")
  }

  @Test("says whether zlib and zstd are built in, and how to have them")
  func compression() throws {
    let json = try JSONSerialization.jsonObject(
      with: Data(Kvmlite.run("doctor", "--json").output.utf8))
    #expect((json as? [String: Any])?["compressed_disks"] as? Bool == (Decompression.lack == nil))
    let line = try Kvmlite.run("doctor").output.split(separator: "\n")
      .first { $0.contains("zlib and Zstandard") }
    let words = Decompression.lack ?? "disk images in qcow2 with compressed clusters"
    #expect(line?.hasSuffix(words) == true)
  }

  @Test(
    "says what is wrong and what mends it, in the words of a run that meets the same", .needsKVM,
    .needsMounts,
    arguments: [
      (mounting("mount -t tmpfs none /dev"), 69, "there is no /dev/kvm"),
      (mounting("mount --bind /dev/null /dev/kvm"), 69, "it is not KVM's device"),
      (mounting("mount --bind /etc/hostname /dev/kvm"), 69, "it is not KVM's device"),
      (
        mounting("mount -t tmpfs none /dev && mknod -m 600 /dev/kvm c 10 232")
          + ["setpriv", "--reuid", "65534", "--clear-groups"], 77, "may not open /dev/kvm"
      ),
    ] as [([String], Int32, String)])
  func trouble(wrapper: [String], status: Int32, words: String) throws {
    let doctor = try Kvmlite.run(["doctor"], by: wrapper)
    #expect(doctor.end == .exited(status))
    #expect(doctor.output.contains(words), "\(doctor.output)")
    let run = try Kvmlite.run([], by: wrapper)
    #expect(run.end == .exited(status))
    #expect(run.output == "")
    #expect(run.errors.contains(words), "\(run.errors)")
    let guest = ["lab", "exits", "--guest", "/proc/version"]
    for arguments in [["lab", "modes"], ["lab", "cow"], guest] {
      let lab = try Kvmlite.run(arguments, by: wrapper)
      #expect(lab.end == .exited(status))
      #expect(lab.errors == run.errors)
    }
    // The same summary, and the same remedies line by line.
    let remedies = run.errors.split(separator: "\n").filter { $0.hasPrefix("  - ") }
    #expect(!remedies.isEmpty)
    for remedy in remedies { #expect(doctor.output.contains(remedy.dropFirst(4)), "\(remedy)") }
  }

  @Test("is not needed for what is wrong with an image", .needsMounts)
  func imageFirst() throws {
    let result = try Kvmlite.run(["/no/such"], by: Self.mounting("mount -t tmpfs none /dev"))
    #expect(result.end == .exited(66))
  }
}
