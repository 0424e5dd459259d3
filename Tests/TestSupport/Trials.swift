import Testing

/// How much is tried of what a test tries many times: all of it on a real machine, and on a host made of
/// software, which is slow and judges KVM, enough to see that it works there.
package enum Trials {
  /// Whether this is such a host.
  package static let areFew = Deadline.patience > 1

  /// `usual` rounds, or a twentieth of them.
  package static func rounds(_ usual: Int) -> Int { areFew ? max(1, usual / 20) : usual }

  /// All cases, or one from the middle.
  package static func cases<Case>(_ all: [Case]) -> [Case] {
    areFew ? [all[all.count / 2]] : all
  }
}

extension Trait where Self == ConditionTrait {
  /// Skips a test on a slow host, as another kind of processor doesn't change what it asks for.
  package static var sameOnEachHost: Self {
    .disabled(if: Trials.areFew, "no processor decides this, and slow hosts have enough to do")
  }
}
