import ArgumentParser
import Host
import Machine
import VhostUser

/// `kvmlite backend`: devices for virtual machines in other processes.
struct BackendCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "backend", abstract: "Serve a device to virtual machines in other processes.",
    subcommands: [Block.self])

  /// `kvmlite backend block`: a disk.
  struct Block: ParsableCommand {
    static let configuration = CommandConfiguration(
      abstract: "Serve a disk image by vhost-user, to kvmlite and QEMU.",
      discussion: """
        One virtual machine after the other connects to the socket: kvmlite with \
        --disk vhost-user=SOCKET, QEMU with -device vhost-user-blk-pci and memory from \
        memory-backend-memfd,share=on. SIGTERM or Ctrl-C ends it.
        """)

    @Argument(help: ArgumentHelp("Where to listen.", valueName: "socket"))
    var socket: String

    @Argument(
      help: ArgumentHelp(
        "The disk: PATH[,format=raw|qcow2][,readonly][,snapshot][,serial=TEXT].",
        valueName: "image,..."), transform: DeviceOptions.disk)
    var image: VMConfiguration.Device

    @Option(help: "How many queues it has at most, 1 to 64.")
    var queues = 8

    @Flag(help: "End when the first virtual machine has gone.")
    var once = false

    func validate() throws {
      guard (1...64).contains(queues) else {
        throw ValidationError("--queues takes 1 to 64, not \(queues)")
      }
    }

    func run() throws {
      do throws(Failure) { try serve() } catch {
        Message.error(error.message)
        throw ExitCode(error.status)
      }
    }

    private func serve() throws(Failure) {
      let disk = image.disk
      var spec = VMConfiguration()
      spec.devices = [image]
      spec = spec.completed()
      let resources: Resources
      do throws(ResourceError) {
        resources = try Resources(opening: spec, besides: Resources(image: .init([]))) {
          Message.note($0)
        }
      } catch { throw Failure(error, isFromFile: false) }
      guard let path = disk.path, let store = resources.disks[spec.devices[0].id] else {
        throw Failure(status: 64, message: "a disk that another process serves can't be served on")
      }
      do throws(Errno) {
        let server = try BackEndServer(
          store, name: path, serial: disk.serial, queueCount: queues, at: socket
        ) { Message.note("\(socket): \($0)") }
        _ = try server.run(until: [.interrupt, .terminate, .hangUp], once: once)
      } catch { throw Failure(status: 71, message: "\(socket): can't be served: \(error)") }
    }
  }
}
