import ArgumentParser
import Host
import Machine
import Storage
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
        One virtual machine after the other connects to the socket, or several at once (--machines): \
        kvmlite with \
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

    @Flag(help: "End when the first virtual machine has gone, or the last of several at once.")
    var once = false

    @Option(
      help: ArgumentHelp(
        "How many virtual machines it serves at once, 1 to 64: each reads a disk that is readonly, or "
          + "has an overlay of its own on one that is snapshot. They are served a request each in turn."
      ))
    var machines = 1

    @Flag(name: .shortAndLong, help: "Say what it gives up before it serves anybody.")
    var verbose = false

    @OptionGroup
    var confinement: SandboxOptions

    func validate() throws {
      guard (1...64).contains(queues) else {
        throw ValidationError("--queues takes 1 to 64, not \(queues)")
      }
      guard (1...64).contains(machines) else {
        throw ValidationError("--machines takes 1 to 64, not \(machines)")
      }
      guard machines == 1 || image.disk.isReadOnly || image.disk.isSnapshot else {
        throw ValidationError(
          "several machines at once can't write to one disk: add ,snapshot or ,readonly to it")
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
      guard let path = disk.path else { throw Self.isServed }
      let sandbox = try RunSandbox(confinement)
      let opened = try open(path)
      let store = reporting(opened, path)
      let newFile = Errand(.makeUnnamed(HostEnvironment.temporaryDirectory))
      let sharing =
        machines == 1
        ? nil
        : BackEndServer.Sharing(most: machines) {
          guard disk.isSnapshot else {
            // What is only read can be everybody's.
            return store
          }
          return (try? DiskImage.overlay(on: opened, by: newFile)).map { reporting($0, path) }
        }
      let server: BackEndServer
      let signals: SignalSource
      do throws(Errno) {
        signals = try SignalSource([.interrupt, .terminate, .hangUp])
        server = try BackEndServer(
          store, name: path, serial: disk.serial, queueCount: queues, at: socket, sharing: sharing
        ) { Message.note("\(socket): \($0)") }
      } catch { throw failure(error) }
      // A front end is somebody's guest.
      try sandbox.enter(isVerbose: verbose)
      do throws(Errno) { _ = try server.run(until: signals, once: once) } catch {
        throw failure(error)
      }
    }

    private func failure(_ error: Errno) -> Failure {
      Failure(status: 71, message: "\(socket): can't be served: \(error)")
    }

    private static var isServed: Failure {
      Failure(status: 64, message: "a disk that another process serves can't be served on")
    }

    /// Opens the disk: for several machines without an overlay, of which each gets its own.
    private func open(_ path: String) throws(Failure) -> DiskImage.Opened {
      let disk = image.disk
      var options = DiskImage.Options()
      options.format = disk.format
      options.isReadOnly = disk.isReadOnly || machines > 1
      options.isSnapshot = disk.isSnapshot && machines == 1
      do throws(DiskError) {
        let opened = try DiskImage.open(path, options)
        for warning in opened.warnings { Message.note(warning.inOptions) }
        return opened
      } catch { throw Failure(error) }
    }

    private func reporting(_ opened: DiskImage.Opened, _ path: String) -> any BlockStore {
      ReportingDisk(opened, name: path) { Message.note($0.inOptions) }
    }
  }
}
