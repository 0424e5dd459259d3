import KVM

extension VM {
  /// Leaves the 8259s and the 8254, which are there, as a PC's firmware does (IBM Personal Computer AT
  /// Technical Reference, 1985, BIOS listing TEST1 and TEST2): vectors from 0x08 and 0x70 on, only the
  /// timer and the second 8259 heard, and a tick 18.2 times a second.
  func setFirmwareState() throws(KVMError) {
    try initializePICs(bases: (0x08, 0x70), masks: (0b1111_1010, 0b1111_1111))
    var timer = try pit()
    // As 0x36 at port 0x43 and two zeros at 0x40 leave it: both bytes, a square wave of 65536 ticks.
    timer.channels.0.rw_mode = 3
    timer.channels.0.read_state = 3
    timer.channels.0.write_state = 3
    timer.channels.0.mode = 3
    timer.channels.0.count = 0x1_0000
    try setPIT(timer)
  }
}
