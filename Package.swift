// swift-tools-version: 6.2
import PackageDescription

// CI turns warnings into errors; a user's newer compiler may warn of more without breaking the build.
let settings: [SwiftSetting] =
  [.strictMemorySafety()]
  + (Context.environment["KVMLITE_WARNINGS_AS_ERRORS"] == nil
    ? [] : [.treatAllWarnings(as: .error)])

// Stock kernels need downloads and a host that runs ring 0: `scripts/test-hosts` asks for their tests.
let kernelTests: [Target] =
  Context.environment["KVMLITE_KERNEL_TESTS"] == nil
  ? []
  : [
    .testTarget(
      name: "KernelTests", dependencies: ["kvmlite", "Machine", "Memory", "TestSupport"],
      exclude: ["vsock.c", "vsock-host"], swiftSettings: settings)
  ]

// Nothing but the toolchain and Linux's headers is needed without them.
let compression: [Target.Dependency] = ["CZlib", "CZstd"].map {
  .target(name: $0, condition: .when(traits: ["CompressedDisks"]))
}

let package = Package(
  name: "kvmlite",
  products: [
    .executable(name: "kvmlite", targets: ["kvmlite"]),
    .library(name: "KVMLite", targets: ["KVMLite"]),
    .library(name: "KVMLiteTesting", targets: ["KVMLiteTesting"]),
  ],
  traits: [
    .trait(
      name: "CompressedDisks",
      description: "Compressed clusters of qcow2 images; needs zlib1g-dev and libzstd-dev.")
  ],
  dependencies: [
    .package(url: "https://github.com/apple/swift-argument-parser", from: "1.5.0")
  ],
  targets: [
    // C shims
    .systemLibrary(name: "CKVM", path: "CKVM"),
    .systemLibrary(name: "CLinux", path: "CLinux"),
    // What must run before Swift's runtime
    .target(name: "CStart", path: "CStart"),
    .systemLibrary(name: "CZlib", path: "CZlib"),
    .systemLibrary(name: "CZstd", path: "CZstd"),

    // Arrows point one way:
    // {kvmlite -> Lab, KVMLite} -> Inspect -> Machine -> {KVM, VhostUser -> Devices -> {Storage, Network}, Guests -> Boot, ACPI} -> Memory -> Host
    .target(
      name: "Host", dependencies: ["CLinux"] + compression, swiftSettings: settings),
    .target(name: "Memory", dependencies: ["Host"], swiftSettings: settings),
    .target(name: "KVM", dependencies: ["CKVM", "Memory", "Host"], swiftSettings: settings),
    // What a confined process may ask of the kernel
    .target(name: "Sandbox", dependencies: ["CKVM", "CLinux", "Host"], swiftSettings: settings),
    .target(name: "Storage", dependencies: ["Memory", "Host"], swiftSettings: settings),
    .target(name: "Network", dependencies: ["Memory", "Host"], swiftSettings: settings),
    .target(
      name: "Devices", dependencies: ["Storage", "Network", "Memory", "Host"],
      swiftSettings: settings),
    .target(
      name: "VhostUser", dependencies: ["Devices", "Storage", "Memory", "Host"],
      swiftSettings: settings),
    .target(name: "Boot", dependencies: ["Memory", "Host"], swiftSettings: settings),
    .target(name: "ACPI", dependencies: ["Memory"], swiftSettings: settings),
    .target(
      name: "Machine",
      dependencies: [
        "KVM", "VhostUser", "Devices", "Storage", "Network", "Guests", "Boot", "ACPI", "Memory",
        "Host",
      ],
      swiftSettings: settings),
    // Traces, page walks and crashes in words
    .target(
      name: "Inspect", dependencies: ["Machine", "Devices", "KVM", "Memory", "Host"],
      swiftSettings: settings),
    // What this host can do
    .target(name: "Doctor", dependencies: ["KVM", "Host"], swiftSettings: settings),
    // The library's face
    .target(
      name: "KVMLite",
      dependencies: [
        "Inspect", "Doctor", "Machine", "Guests", "Boot", "Devices", "Storage", "Network",
        "Sandbox",
        "KVM", "Memory", "Host",
      ],
      swiftSettings: settings),
    // What the library has for tests alone, which may import Testing
    .target(name: "KVMLiteTesting", dependencies: ["KVMLite"], swiftSettings: settings),
    .target(
      name: "Lab",
      dependencies: [
        "Inspect", "Doctor", "Machine", "VhostUser", "Guests", "Devices", "Storage", "KVM",
        "Memory", "Host",
      ],
      swiftSettings: settings),
    .executableTarget(
      name: "kvmlite",
      dependencies: [
        "Lab", "Inspect", "Doctor", "Machine", "VhostUser", "Guests", "Boot", "Devices", "Storage",
        "Network", "Sandbox", "KVM", "Memory", "Host", "CStart",
        .product(name: "ArgumentParser", package: "swift-argument-parser"),
      ],
      swiftSettings: settings),

    // The built-in guests: guest-asm/*.S, assembled and embedded while building
    .target(
      name: "Guests", dependencies: ["Boot"], swiftSettings: settings, plugins: ["AssembleGuests"]),
    // Its path is the guests' folder, so that SwiftPM notices when a guest comes or goes.
    .plugin(
      name: "AssembleGuests", capability: .buildTool(), dependencies: ["assemble-guests"],
      path: "guest-asm", exclude: ["README.md", "include", "lab"], sources: ["plugin"]),
    .executableTarget(name: "assemble-guests", swiftSettings: settings),

    // What tests share: programs run with a deadline, and the condition that there is a KVM
    .target(
      name: "TestSupport",
      dependencies: ["CLinux", "Machine", "KVM", "Devices", "Storage", "Memory", "Host"],
      path: "Tests/TestSupport",
      swiftSettings: settings),

    // Tests that need no /dev/kvm
    .testTarget(
      name: "BootTests", dependencies: ["Boot", "Memory", "TestSupport"], swiftSettings: settings),
    .testTarget(
      name: "ACPITests", dependencies: ["ACPI", "Memory", "TestSupport"], swiftSettings: settings),
    .testTarget(
      name: "GuestsTests", dependencies: ["Guests", "Boot", "TestSupport"], swiftSettings: settings),
    .testTarget(
      name: "MachineWordsTests",
      dependencies: [
        "Inspect", "Doctor", "Machine", "Boot", "Devices", "Storage", "Network", "KVM", "Memory",
        "Host", "TestSupport",
      ],
      swiftSettings: settings),
    .testTarget(
      name: "DocsTests",
      dependencies: [
        "Machine", "Boot", "Devices", "Storage", "Network", "KVM", "Memory", "Host", "TestSupport",
      ],
      swiftSettings: settings),
    // What docs/library.md shows: it knows of kvmlite what another package would.
    .testTarget(
      name: "LibraryExampleTests", dependencies: ["KVMLite", "KVMLiteTesting"],
      packageAccess: false,
      swiftSettings: settings),
    .testTarget(
      name: "HostTests", dependencies: ["Sandbox", "Host", "TestSupport"],
      exclude: ["libseccomp-filter"], swiftSettings: settings),
    .testTarget(
      name: "MemoryTests", dependencies: ["Memory", "Host", "TestSupport"], swiftSettings: settings),
    .testTarget(
      name: "StorageTests",
      dependencies: ["Storage", "Memory", "Host", "TestSupport", "storage-writer"],
      swiftSettings: settings),
    // What StorageTests kills while it writes
    .executableTarget(
      name: "storage-writer", dependencies: ["Storage", "Memory", "Host"],
      path: "Tests/storage-writer", swiftSettings: settings),
    // What scripts/bench-disk holds against qemu-img bench
    .executableTarget(
      name: "storage-bench", dependencies: ["Storage", "Memory", "Host"],
      path: "Tests/storage-bench", swiftSettings: settings),
    .testTarget(
      name: "NetworkTests", dependencies: ["Network", "Memory", "Host", "TestSupport"],
      swiftSettings: settings),
    .testTarget(
      name: "DevicesTests",
      dependencies: ["Devices", "Storage", "Network", "Memory", "Host", "TestSupport"],
      swiftSettings: settings),

    .testTarget(
      name: "VhostUserTests",
      dependencies: ["VhostUser", "Devices", "Storage", "Memory", "Host", "TestSupport"],
      swiftSettings: settings),

    // Tests on a real /dev/kvm, skipped where there is none unless KVMLITE_REQUIRE_KVM is set
    .testTarget(
      name: "KVMTests", dependencies: ["KVM", "CKVM", "Memory", "Host", "TestSupport"],
      swiftSettings: settings),
    .testTarget(
      name: "MachineTests",
      dependencies: [
        "Inspect", "Machine", "Guests", "Boot", "Devices", "Storage", "Network", "KVM", "Memory",
        "Host", "TestSupport",
      ],
      exclude: ["Golden"], swiftSettings: settings),
    .testTarget(
      name: "KVMLiteTests", dependencies: ["KVMLite", "KVMLiteTesting", "TestSupport"],
      swiftSettings: settings),
    .testTarget(
      name: "LabTests",
      dependencies: ["Lab", "Doctor", "Guests", "KVM", "Memory", "Host", "TestSupport"],
      exclude: ["Programs"], swiftSettings: settings),
    .testTarget(
      name: "CommandTests", dependencies: ["Guests", "Host", "TestSupport"], exclude: ["Saves"],
      swiftSettings: settings),
  ] + kernelTests,
  swiftLanguageModes: [.v6]
)
