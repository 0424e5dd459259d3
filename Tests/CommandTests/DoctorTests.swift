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
