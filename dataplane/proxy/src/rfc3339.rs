//! Writes times as RFC 3339 text in UTC, with no allocation: the access log does so for every connection.

/// Appends `2026-07-02T11:54:56.789Z`. Years after 9999 do not fit.
pub(crate) fn timestamp(unix_ms: u64, out: &mut Vec<u8>) {
    let (days, ms) = (unix_ms / MS_A_DAY, unix_ms % MS_A_DAY);
    let (year, month, day) = civil(days);
    let mut text = *b"0000-00-00T00:00:00.000Z";
    let mut set = |end: usize, digits: usize, mut value: u64| {
        for at in (end - digits..end).rev() {
            text[at] = b"0123456789"[usize::try_from(value % 10).expect("it is a digit")];
            value /= 10;
        }
    };
    set(4, 4, year);
    set(7, 2, month);
    set(10, 2, day);
    set(13, 2, ms / 3_600_000);
    set(16, 2, ms / 60_000 % 60);
    set(19, 2, ms / 1000 % 60);
    set(23, 3, ms % 1000);
    out.extend_from_slice(&text);
}

/// The day alone: `2026-07-02`.
pub(crate) fn date(unix_s: u64) -> String {
    let (year, month, day) = civil(unix_s / (MS_A_DAY / 1000));
    format!("{year:04}-{month:02}-{day:02}")
}

/// Year, month and day of a day since 1970. Counts years from March, so that the day that may be missing is the
/// last, and in eras of 400 years, which all have the same number of days.
fn civil(days: u64) -> (u64, u64, u64) {
    let from_march_0000 = days + 719_468;
    let (era, day_of_era) = (from_march_0000 / 146_097, from_march_0000 % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    (year, month, day)
}

const MS_A_DAY: u64 = 86_400_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_right_on_the_days_that_go_wrong() {
        let check = |unix_s: u64, expect: &str| {
            let mut out = Vec::new();
            timestamp(unix_s * 1000 + 7, &mut out);
            assert_eq!(String::from_utf8(out).unwrap(), format!("{expect}.007Z"));
            assert_eq!(date(unix_s), expect[..10]);
        };
        check(0, "1970-01-01T00:00:00");
        check(951_782_399, "2000-02-28T23:59:59");
        check(951_782_400, "2000-02-29T00:00:00");
        check(951_868_800, "2000-03-01T00:00:00");
        check(1_709_164_800, "2024-02-29T00:00:00");
        check(1_767_225_599, "2025-12-31T23:59:59");
        check(1_767_225_600, "2026-01-01T00:00:00");
        check(4_107_542_400, "2100-03-01T00:00:00");
        check(253_402_300_799, "9999-12-31T23:59:59");
    }
}
