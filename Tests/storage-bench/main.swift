// The work of `qemu-img bench` with the library: so many requests of 4 KiB.
//
//   storage-bench IMAGE raw|qcow2 read|write COUNT STEP FLUSHES
//
// Request N is at N times STEP bytes, modulo the disk's size; after every FLUSHES writes comes a flush,
// none for 0. They are done one after the other, as a virtio queue's thread does them however many the
// guest has queued. Prints the microseconds they took, those that opening the image took, and the
// most memory in KiB. What was written is in the host's page cache then, as it is for
// qemu-img bench -t writeback.
import Host
import Memory
import Storage

let arguments = CommandLine.arguments
guard arguments.count == 7, let format = DiskFormat(rawValue: arguments[2]),
  let count = UInt64(arguments[4]), let step = UInt64(arguments[5]),
  let flushes = UInt64(arguments[6])
else { fatalError("storage-bench IMAGE raw|qcow2 read|write COUNT STEP FLUSHES") }

var options = DiskImage.Options()
options.format = format
let opening = Clock.monotonicNanoseconds
let disk = try DiskImage.open(arguments[1], options).store
let segments = [try MemoryView(scratch: 4096)]
let isWrite = arguments[3] == "write"
let start = Clock.monotonicNanoseconds
var offset: UInt64 = 0
for number in 1...max(1, count) {
  if isWrite {
    try disk.write(from: segments, at: offset)
    if flushes > 0 && number % flushes == 0 { try disk.flush() }
  } else {
    try disk.read(into: segments, at: offset)
  }
  offset = (offset + step) % disk.size
}
let end = Clock.monotonicNanoseconds
let memory = try FileDescriptor(opening: "/proc/self/status", [.readOnly]).read(atMost: 4096)
let peak =
  String(decoding: memory, as: UTF8.self).split(separator: "\n")
  .first { $0.hasPrefix("VmHWM") }?.filter(\.isNumber) ?? "0"
try FileDescriptor(borrowing: 1)
  .writeAll("\((end - start) / 1000) \((start - opening) / 1000) \(peak)\n")
