import ArgumentParser
import Boot
import Machine
import Memory

/// `kvmlite [run]`: runs an image.
struct RunCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "run", abstract: "Run a guest image (this is the default).",
    discussion: """
      Exit status: 0 when the guest ends in order (power-off, reset with --no-reboot, a halt that \
      nothing can end), (V<<1)|1 when it writes V to port 0xF4, 64 wrong options, 65 malformed \
      image, 66 unreadable image, 69 no usable KVM, 70 the guest crashed, 71 the host failed, \
      77 no permission for /dev/kvm, 124 the time ran out, 128+N ended by signal N.
      """)

  @Argument(
    help: ArgumentHelp(
      "The guest image, or guest:NAME for a built-in guest (see: kvmlite guests).",
      valueName: "image"))
  var image: String?

  @Option(name: .shortAndLong, help: "The guest's memory: a number with K, M, G or T.")
  var memory = MemorySize(bytes: 128 << 20)

  @Option(name: .shortAndLong, help: "How many VCPUs it has.")
  var cpus = 1

  @Option(help: "The mode a flat image starts in: real, protected or long. (default: real)")
  var mode: CPUMode?

  @Option(
    help: ArgumentHelp("Where a flat image is loaded. (default: 0x10000)", valueName: "address"))
  var loadAddress: GuestAddress?

  @Option(
    help: ArgumentHelp(
      "Linux's initial RAM disk, or a PVH or Multiboot kernel's module. Repeatable.",
      valueName: "file"))
  var initrd: [String] = []

  @Option(
    help: ArgumentHelp(
      "What the kernel is told, after the defaults (see --verbose).", valueName: "text"))
  var append: String?

  @Option(
    help: ArgumentHelp(
      "Start a PC's firmware, such as SeaBIOS's bios.bin, instead of an image.", valueName: "file"))
  var firmware: String?

  @Option(
    help: ArgumentHelp(
      "Add a device: rng, balloon, virtio-console, or testdev, that of kvm-unit-tests. May be "
        + "repeated.", valueName: "name"))
  var device: [OptionalDevice] = []

  @Option(
    help: ArgumentHelp(
      "Ask the guest for so much of its memory back; adds the balloon that this takes.",
      valueName: "size"))
  var balloon: MemorySize?

  @Option(
    help: ArgumentHelp(
      """
      Add a disk: PATH[,format=raw|qcow2][,readonly][,snapshot][,bus=virtio|mmio|ide][,serial=TEXT], \
      or vhost-user=SOCKET[,bus=virtio|mmio] for one that another process serves. \
      May be repeated; a comma in the path is doubled.
      """, valueName: "path,..."))
  var disk: [DiskOption] = []

  @Option(
    help: ArgumentHelp(
      """
      The bus of all virtio devices: pci, or mmio for small guests without PCI, which has room for \
      five. A disk's bus=mmio is for it alone.
      """, valueName: "bus"))
  var virtioBus = Configuration.VirtioBus.pci

  @Option(
    help: ArgumentHelp(
      """
      Add a network card: none, user (by passt, needs no rights) or tap=NAME[,queues=N], each but \
      none with an optional ,mac=ADDRESS and ,mtu=BYTES. May be repeated.
      """, valueName: "where"))
  var net: [NetworkOption] = []

  @Option(
    help: ArgumentHelp(
      """
      Add a vsock device: cid=N,socket=PATH. Programs connect to PATH and say CONNECT PORT; the \
      guest's connections to port P go to PATH_P.
      """, valueName: "cid=N,socket=PATH"))
  var vsock: VsockOption?

  @Option(help: "The processors' features: host for all there are, baseline for x86-64-v2.")
  var cpu = CPUModel.host

  @Option(
    help: ArgumentHelp(
      """
      The guest's console: stdio, pty, none or file=PATH. Input goes to the serial port, or with \
      ,input=virtio behind it to a virtio console (Linux's hvc0), which that adds; both print here.
      """, valueName: "where"))
  var console = ConsoleChoice()

  @Option(
    help: ArgumentHelp(
      """
      Print a line for each exit, interrupt and device request; with =io, =mmio, =irq, =requests \
      only for these.
      """, valueName: "kinds"))
  var trace: TraceKinds?

  @Option(
    help: ArgumentHelp(
      "Write the same as trace events for ui.perfetto.dev.", valueName: "out.json"))
  var traceFile: String?

  @Option(
    help: ArgumentHelp(
      "Print counts and times of exits and devices at the end; as JSON with =json.",
      valueName: "format"))
  var stats: StatisticsFormat?

  @Option(
    help: ArgumentHelp(
      "At the end, follow a linear address through the guest's page tables. May be repeated.",
      valueName: "address"))
  var walk: [GuestAddress] = []

  @Option(help: ArgumentHelp("End the run after so many seconds.", valueName: "seconds"))
  var timeout: Double?

  @Flag(name: .shortAndLong, help: "Say what the machine is made of before it starts.")
  var verbose = false

  @Flag(help: "End when the guest resets the machine, instead of starting it again.")
  var noReboot = false

  func run() throws {
    let options = RunOptions(
      image: image, memorySize: memory.bytes, vcpuCount: cpus, mode: mode, loadAddress: loadAddress,
      initrds: initrd, firmware: firmware, devices: device, balloonTarget: balloon?.bytes,
      virtioBus: virtioBus,
      disks: disk, networks: net, vsock: vsock, commandLine: append,
      cpu: cpu, console: console, trace: trace, traceFile: traceFile, statistics: stats,
      walks: walk,
      timeLimit: timeout,
      reboots: !noReboot, isVerbose: verbose)
    throw ExitCode(Session(options).run())
  }
}
