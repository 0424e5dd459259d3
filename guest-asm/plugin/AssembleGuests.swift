import Foundation
import PackagePlugin

/// Runs assemble-guests on guest-asm/*.S and guest-asm/lab/*.S while `swift build` builds the target Guests.
///
/// Everything that the result depends on is declared as an input, so that a changed guest, include
/// file or linker script assembles the guests anew and nothing else does.
@main
struct AssembleGuests: BuildToolPlugin {
  func createBuildCommands(context: PluginContext, target: any Target) throws -> [Command] {
    let sources = context.package.directoryURL.appending(path: "guest-asm")
    let include = sources.appending(path: "include")
    let guests = try (files(in: sources) + files(in: sources.appending(path: "lab")))
      .filter { $0.pathExtension == "S" }
    let output = context.pluginWorkDirectoryURL.appending(path: "AssembledGuests.swift")
    return [
      .buildCommand(
        displayName: "Assembling \(guests.count) guests",
        executable: try context.tool(named: "assemble-guests").url,
        arguments: [
          "--clang", try context.tool(named: "clang").url.path,
          "--linker", try context.tool(named: "ld.lld").url.path,
          "--include", include.path,
          "--work", context.pluginWorkDirectoryURL.path,
          "--output", output.path,
        ] + guests.map(\.path),
        inputFiles: try guests + files(in: include),
        outputFiles: [output])
    ]
  }

  private func files(in directory: URL) throws -> [URL] {
    try FileManager.default.contentsOfDirectory(at: directory, includingPropertiesForKeys: nil)
      .sorted { $0.lastPathComponent < $1.lastPathComponent }
  }
}
