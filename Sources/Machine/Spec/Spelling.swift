/// What somebody may have meant who wrote a name that there isn't.
package enum Spelling {
  /// The one of `names` that is most like `word`; nil if none is much like it.
  package static func nearest(to word: String, among names: some Sequence<String>) -> String? {
    let letters = Array(word.utf8)
    guard letters.count <= 64 else { return nil }
    let most = max(1, letters.count / 3)
    var best: (name: String, distance: Int)?
    for name in names {
      let distance = distance(letters, Array(name.utf8))
      if distance <= most, distance < best?.distance ?? .max, distance < name.utf8.count {
        best = (name, distance)
      }
    }
    return best?.name
  }

  /// `: did you mean 'NAME'?`, or nothing.
  package static func hint(_ word: String, among names: some Sequence<String>) -> String {
    nearest(to: word, among: names).map { ": did you mean '\($0)'?" } ?? ""
  }

  /// How many letters have to be put in, left out, changed, or swapped with the next one.
  package static func distance(_ a: [UInt8], _ b: [UInt8]) -> Int {
    var previous: [Int] = []
    var row = Array(0...b.count)
    for i in a.indices {
      var next = [i + 1]
      for j in b.indices {
        var cost = min(row[j + 1], next[j]) + 1
        cost = min(cost, row[j] + (a[i] == b[j] ? 0 : 1))
        if i > 0, j > 0, a[i] == b[j - 1], a[i - 1] == b[j] {
          cost = min(cost, previous[j - 1] + 1)
        }
        next.append(cost)
      }
      (previous, row) = (row, next)
    }
    return row[b.count]
  }
}
