/// The commands that a drive knows, by code (ATA/ATAPI-7, volume 1, table 20; ATA/ATAPI-5 for those
/// that later became obsolete). All others are aborted.
enum ATACommand: UInt8 {
  case nop = 0x00
  case dataSetManagement = 0x06
  case recalibrate = 0x10
  case readSectors = 0x20
  case readSectorsWithoutRetry = 0x21
  case readSectorsExt = 0x24
  case readDMAExt = 0x25
  case readNativeMaxAddressExt = 0x27
  case readMultipleExt = 0x29
  case writeSectors = 0x30
  case writeSectorsWithoutRetry = 0x31
  case writeSectorsExt = 0x34
  case writeDMAExt = 0x35
  case writeMultipleExt = 0x39
  case readVerify = 0x40
  case readVerifyWithoutRetry = 0x41
  case readVerifyExt = 0x42
  case seek = 0x70
  case executeDeviceDiagnostic = 0x90
  case initializeDeviceParameters = 0x91
  case standbyImmediateOld = 0x94
  case idleImmediateOld = 0x95
  case standbyOld = 0x96
  case idleOld = 0x97
  case checkPowerModeOld = 0x98
  case sleepOld = 0x99
  case readMultiple = 0xC4
  case writeMultiple = 0xC5
  case setMultipleMode = 0xC6
  case readDMA = 0xC8
  case readDMAWithoutRetry = 0xC9
  case writeDMA = 0xCA
  case writeDMAWithoutRetry = 0xCB
  case standbyImmediate = 0xE0
  case idleImmediate = 0xE1
  case standby = 0xE2
  case idle = 0xE3
  case checkPowerMode = 0xE5
  case sleep = 0xE6
  case flushCache = 0xE7
  case flushCacheExt = 0xEA
  case identifyDevice = 0xEC
  case setFeatures = 0xEF
  case readNativeMaxAddress = 0xF8

  /// The command of that code. 0x11 to 0x1F and 0x71 to 0x7F are 0x10 and 0x70 with what was once
  /// the step rate.
  init?(code: UInt8) {
    switch code {
    case 0x10...0x1F: self = .recalibrate
    case 0x70...0x7F: self = .seek
    default:
      guard let command = Self(rawValue: code) else { return nil }
      self = command
    }
  }
}

/// What SET FEATURES can do, by the Features register (ATA/ATAPI-7, volume 1, 6.47).
enum ATAFeature: UInt8 {
  case enableWriteCache = 0x02
  case setTransferMode = 0x03
  case keepSettingsOnReset = 0x66
  case disableWriteCache = 0x82
  case revertSettingsOnReset = 0xCC
}

/// How data is transferred, as SET FEATURES codes it in the Sector Count register and IDENTIFY
/// DEVICE shows it in words 63 and 88 (ATA/ATAPI-7, volume 1, table 54).
enum ATATransferMode: Equatable {
  case pio(UInt8)
  case multiwordDMA(UInt8)
  case ultraDMA(UInt8)

  /// The mode of that code; nil for one that no drive here has.
  init?(code: UInt8) {
    let mode = code & 7
    switch code >> 3 {
    case 0 where mode <= 1: self = .pio(0)
    case 1 where mode <= 4: self = .pio(mode)
    case 4 where mode <= 2: self = .multiwordDMA(mode)
    case 8 where mode <= 5: self = .ultraDMA(mode)
    default: return nil
    }
  }

  /// Its code.
  var code: UInt8 {
    switch self {
    case .pio(let mode): 1 << 3 | mode
    case .multiwordDMA(let mode): 4 << 3 | mode
    case .ultraDMA(let mode): 8 << 3 | mode
    }
  }
}
