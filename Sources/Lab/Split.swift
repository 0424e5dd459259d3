extension Experiment {
  static let split = Experiment(
    withProgram: "split", "the para-virtual split: front end, ring and back end in two processes",
    "I/O virtualization"
  ) { report, program throws(LabError) in
  }
}
