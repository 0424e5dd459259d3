// The work of `qemu-img bench` with the library: so many requests of 4 KiB, one after the other.
//
//   storage-bench IMAGE raw|qcow2 read|write COUNT STEP
//
// Request N is at N times STEP bytes, modulo the disk's size. Prints the microseconds they took; what
// they wrote is in the host's page cache then, as it is for qemu-img bench -t writeback.
import Host
import Memory
import Storage

let arguments = CommandLine.arguments
guard arguments.count == 6, let format = DiskFormat(rawValue: arguments[2]),
  let count = UInt64(arguments[4]), let step = UInt64(arguments[5])
else { fatalError("storage-bench IMAGE raw|qcow2 read|write COUNT STEP") }

var options = DiskImage.Options()
options.format = format
let disk = try DiskImage.open(arguments[1], options).store
let segments = [try MemoryView(scratch: 4096)]
let isWrite = arguments[3] == "write"
let start = Clock.monotonicNanoseconds
var offset: UInt64 = 0
for _ in 0..<count {
  if isWrite {
    try disk.write(from: segments, at: offset)
  } else {
    try disk.read(into: segments, at: offset)
  }
  offset = (offset + step) % disk.size
}
let microseconds = (Clock.monotonicNanoseconds - start) / 1000
try FileDescriptor(borrowing: 1).writeAll("\(microseconds)\n")
