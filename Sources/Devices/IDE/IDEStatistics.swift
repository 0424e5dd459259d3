/// What a drive counts besides its requests.
struct ATACounters {
  /// Commands that ended with an error.
  var failures: UInt64 = 0
  /// Accesses to the data port, those of repeated instructions each.
  var dataPortAccesses: UInt64 = 0
  /// Transfers by the bus master, each from one start to its end.
  var dmaTransfers: UInt64 = 0
  /// FLUSH CACHE commands.
  var flushes: UInt64 = 0
}

extension ATADrive {
  /// What the drive has done since the machine was made, under the name `label`.
  func statistics(label: String) -> DeviceStatistics {
    DeviceStatistics(
      label: label,
      rings: [.init(number: nil, name: "", statistics: recorder.statistics)],
      counters: [
        .init("failures", counters.failures),
        .init("data_port_accesses", counters.dataPortAccesses),
        .init("dma_transfers", counters.dmaTransfers), .init("flushes", counters.flushes),
      ])
  }
}

extension ATACommand {
  /// What it does, for traces.
  var operation: StaticString {
    switch self {
    case .readSectors, .readSectorsWithoutRetry, .readSectorsExt: "read PIO"
    case .readMultiple, .readMultipleExt: "read MULTIPLE"
    case .readDMA, .readDMAWithoutRetry, .readDMAExt: "read DMA"
    case .writeSectors, .writeSectorsWithoutRetry, .writeSectorsExt: "write PIO"
    case .writeMultiple, .writeMultipleExt: "write MULTIPLE"
    case .writeDMA, .writeDMAWithoutRetry, .writeDMAExt: "write DMA"
    case .readVerify, .readVerifyWithoutRetry, .readVerifyExt: "verify"
    case .dataSetManagement: "trim"
    case .flushCache, .flushCacheExt: "flush"
    case .identifyDevice: "IDENTIFY"
    case .setFeatures: "SET FEATURES"
    case .setMultipleMode: "SET MULTIPLE MODE"
    case .initializeDeviceParameters: "INITIALIZE PARAMETERS"
    case .executeDeviceDiagnostic: "DIAGNOSTIC"
    case .readNativeMaxAddress, .readNativeMaxAddressExt: "READ NATIVE MAX"
    case .recalibrate, .seek: "seek"
    case .nop: "NOP"
    case .idle, .idleOld, .idleImmediate, .idleImmediateOld, .standby, .standbyOld,
      .standbyImmediate, .standbyImmediateOld, .checkPowerMode, .checkPowerModeOld, .sleep,
      .sleepOld:
      "power mode"
    }
  }
}
