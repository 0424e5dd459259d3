/// A date and time of the proleptic Gregorian calendar, as a calendar clock shows it, in UTC.
///
/// Fields out of their ranges carry over into the next, as in the 31st of February.
package struct CivilTime: Equatable, Sendable {
  /// Of the common era.
  package var year: Int64
  /// 1 to 12.
  package var month: Int64
  /// 1 to 31.
  package var day: Int64
  /// 0 to 23.
  package var hour: Int64
  /// 0 to 59.
  package var minute: Int64
  /// 0 to 59.
  package var second: Int64
}

extension CivilTime {
  private static let secondsInDay: Int64 = 86400
  // The calendar repeats every 400 years.
  private static let daysInEra: Int64 = 146_097
  // From the 1st of March of year 0, where the count of eras starts, to the 1st of January 1970.
  private static let daysBefore1970: Int64 = 719_468

  /// The date and time so many seconds after, or before, the start of 1970.
  package init(secondsSince1970 seconds: Int64) {
    let (days, time) = seconds.flooredDivision(by: Self.secondsInDay)
    let (era, dayOfEra) = (days + Self.daysBefore1970).flooredDivision(by: Self.daysInEra)
    // Every 4th year is a leap year, but not every 100th, but every 400th again.
    let leapDays = dayOfEra / 1460 - dayOfEra / 36524 + dayOfEra / 146_096
    let yearOfEra = (dayOfEra - leapDays) / 365
    let dayOfYear = dayOfEra - (365 * yearOfEra + yearOfEra / 4 - yearOfEra / 100)
    // Years start in March here, so that the leap day is the last, and 5 months have 153 days.
    let marchMonth = (5 * dayOfYear + 2) / 153
    month = marchMonth < 10 ? marchMonth + 3 : marchMonth - 9
    year = yearOfEra + era * 400 + (month <= 2 ? 1 : 0)
    day = dayOfYear - (153 * marchMonth + 2) / 5 + 1
    hour = time / 3600
    minute = time / 60 % 60
    second = time % 60
  }

  /// How many seconds after the start of 1970 it is; for years within 100 000 of it.
  var secondsSince1970: Int64 {
    let (carriedYears, marchMonth) = (month - 3).flooredDivision(by: 12)
    let (era, yearOfEra) = (year + carriedYears).flooredDivision(by: 400)
    let dayOfYear = (153 * marchMonth + 2) / 5 + day - 1
    let dayOfEra = yearOfEra * 365 + yearOfEra / 4 - yearOfEra / 100 + dayOfYear
    let days = era * Self.daysInEra + dayOfEra - Self.daysBefore1970
    return days * Self.secondsInDay + hour * 3600 + minute * 60 + second
  }

  /// 1 for Sunday to 7 for Saturday, as the MC146818A counts.
  var dayOfWeek: Int64 {
    // The 1st of January 1970 was a Thursday.
    (secondsSince1970.flooredDivision(by: Self.secondsInDay).quotient + 4)
      .flooredDivision(by: 7).remainder + 1
  }
}

extension Int64 {
  /// Division towards minus infinity, with a remainder that is never negative.
  func flooredDivision(by divisor: Int64) -> (quotient: Int64, remainder: Int64) {
    let (quotient, remainder) = quotientAndRemainder(dividingBy: divisor)
    return remainder < 0 ? (quotient - 1, remainder + divisor) : (quotient, remainder)
  }
}
