import Testing

/// A trait that is about each case of each test, in the suites of a suite too, and about no suite as a
/// whole.
package protocol EachCase: SuiteTrait, TestTrait, TestScoping {}

extension EachCase {
  /// The suites in a suite have it.
  package var isRecursive: Bool { true }

  /// Only cases do.
  package func scopeProvider(for test: Test, testCase: Test.Case?) -> Self? {
    testCase == nil ? nil : self
  }
}
