// Writes at random to a disk image until it is killed, and says after each flush that it returned.
//
//   storage-writer IMAGE raw|qcow2 ROUND
//
// Work number N of a round is the same each time (`Work`), so that whoever reads the acknowledgements
// knows what must be on the disk.
import Host
import Memory
import Storage

let arguments = CommandLine.arguments
guard arguments.count == 4, let format = DiskFormat(rawValue: arguments[2]),
  let round = UInt64(arguments[3])
else { fatalError("storage-writer IMAGE raw|qcow2 ROUND") }

var options = DiskImage.Options()
options.format = format
let disk = try DiskImage.open(arguments[1], options).store
let memory = try MemoryView(scratch: Work.blockSize)
let output = FileDescriptor(borrowing: 1)
var number: UInt64 = 0
while true {
  let work = Work(round: round, number: number)
  if work.value == 0 {
    try disk.writeZeroes(
      at: work.block * UInt64(Work.blockSize), count: UInt64(Work.blockSize), mayUnmap: true)
  } else {
    for position in stride(from: 0, to: Work.blockSize, by: 8) {
      memory.store(work.value, position)
    }
    try disk.write(from: [memory], at: work.block * UInt64(Work.blockSize))
  }
  number += 1
  if work.isFlushed {
    try disk.flush()
    try output.writeAll("\(number)\n")
  }
}
