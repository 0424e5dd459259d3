/// The picture of `split`: who did what, from top to bottom, with the ring as it was then.
enum SplitPicture {
  private enum Lane {
    static let guest = 90.0
    static let kvm = 270.0
    static let memory = 450.0
    static let backEnd = 660.0
    static let image = 840.0
  }

  private static let lanes: [(x: Double, name: String, place: String)] = [
    (Lane.guest, "front end", "the guest"), (Lane.kvm, "KVM", "events"),
    (Lane.memory, "ring", "shared memory"), (Lane.backEnd, "back end", "domain 0"),
    (Lane.image, "image", "a file"),
  ]

  static func draw(_ run: SplitRun) -> Picture {
    let (top, row) = (70.0, 92.0)
    let bottom = top + row * Double(run.steps.count - 1) + 30
    var picture = Picture(
      "A read and a write through the ring: time goes down, boxes are what was read from memory.",
      width: 920, height: bottom + 40)
    // Each domain has a background.
    picture.legend(
      20, bottom + 34,
      [("#eef3fa", "domain U"), ("#faf1ea", "domain 0"), ("#ffffff", "the ring in shared memory")])
    picture.rectangle(10, 34, 320, bottom - 24, fill: "#eef3fa")
    picture.rectangle(570, 34, 340, bottom - 24, fill: "#faf1ea")
    picture.label(20, 24, "domain U: the process with the VM", size: 14)
    picture.label(580, 24, "domain 0: the process with the image", size: 14)
    for lane in lanes {
      picture.label(lane.x, 52, lane.name, anchor: .middle)
      picture.label(lane.x, 67, lane.place, size: 11, anchor: .middle, fill: "#666")
      picture.line(lane.x, 74, lane.x, bottom, stroke: "#bbb")
    }
    for index in 1..<run.steps.count {
      let y = top + row * Double(index - 1) + 40
      switch index {
      case 1, 5: describe(&picture, y, isWrite: index == 5)
      case 2, 6: offer(&picture, y)
      case 3, 7: ring(&picture, y)
      default: answer(&picture, y, isWrite: index == 8)
      }
      box(&picture, run.steps[index], y + 14, number: index)
    }
    return picture
  }

  private static func describe(_ picture: inout Picture, _ y: Double, isWrite: Bool) {
    message(
      &picture, y, Lane.guest, Lane.memory,
      isWrite ? "3 descriptors: write sector 6" : "3 descriptors: read sector 5")
  }

  private static func offer(_ picture: inout Picture, _ y: Double) {
    message(&picture, y, Lane.guest, Lane.memory, "a slot, then the available index")
  }

  private static func ring(_ picture: inout Picture, _ y: Double) {
    message(&picture, y, Lane.guest, Lane.kvm, "doorbell")
    message(&picture, y, Lane.kvm, Lane.backEnd, "kick (eventfd)", at: 0.78)
  }

  private static func answer(_ picture: inout Picture, _ y: Double, isWrite: Bool) {
    if isWrite {
      message(&picture, y - 16, Lane.backEnd, Lane.image, "sector 6")
    } else {
      message(&picture, y - 16, Lane.image, Lane.backEnd, "sector 5")
    }
    message(&picture, y, Lane.backEnd, Lane.memory, isWrite ? "status, used" : "data, status, used")
    // Below the ring's box, which is in the way.
    message(&picture, y + 58, Lane.backEnd, Lane.guest, "call (eventfd)", at: 0.14)
  }

  private static func message(
    _ picture: inout Picture, _ y: Double, _ from: Double, _ to: Double, _ text: String,
    at share: Double = 0.5
  ) {
    let gap = from < to ? 3.0 : -3.0
    picture.arrow(from + gap, y, to - gap, y)
    let x = from + (to - from) * share
    picture.label(x, y - 5, text, size: 11, anchor: .middle)
  }

  /// The ring after a step.
  private static func box(
    _ picture: inout Picture, _ step: SplitRun.Step, _ y: Double, number: Int
  ) {
    picture.rectangle(Lane.memory - 66, y, 132, 30, fill: "#fff", stroke: "#888")
    picture.label(
      Lane.memory - 60, y + 12, "\(number)  avail \(step.availableIndex)  used \(step.usedIndex)",
      size: 11, isFixed: true)
    picture.label(
      Lane.memory - 60, y + 25, "   kick \(step.kick)  call \(step.call)", size: 11, isFixed: true)
  }
}
