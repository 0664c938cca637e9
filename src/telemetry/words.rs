//! Numbers as people read them: sizes, times and shares, short.
//!
//! Rounds; whoever needs the number itself takes it from where it is counted.

/// Bytes, in thousands: `999 B`, `1.0 kB`, `5.31 MB`, `1.20 GB`.
#[must_use]
pub fn size(bytes: u64) -> String {
    match bytes {
        0..1_000 => format!("{bytes} B"),
        1_000..1_000_000 => format!("{:.1} kB", bytes as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.2} MB", bytes as f64 / 1e6),
        _ => format!("{:.2} GB", bytes as f64 / 1e9),
    }
}

/// A short while: `0.4 ms`, `210 ms`, `1.3 s`, `95 s`.
#[must_use]
pub fn time(seconds: f64) -> String {
    match seconds {
        seconds if seconds < 0.01 => format!("{:.1} ms", seconds * 1e3),
        seconds if seconds < 1.0 => format!("{:.0} ms", seconds * 1e3),
        seconds if seconds < 60.0 => format!("{seconds:.1} s"),
        _ => format!("{seconds:.0} s"),
    }
}

/// An age: `59 s`, `3 min`, `2 h 5 min`, `3 d 4 h`.
#[must_use]
pub fn age(seconds: f64) -> String {
    let seconds = seconds.max(0.0) as u64;
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3_600 => format!("{} min", seconds / 60),
        3_600..86_400 => format!("{} h {} min", seconds / 3_600, seconds % 3_600 / 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds % 86_400 / 3_600),
    }
}

/// `97.6 %`; a dash for a part of nothing.
#[must_use]
pub fn percent(part: u64, whole: u64) -> String {
    share((whole > 0).then(|| part as f64 / whole as f64))
}

/// The same of a share from 0 to 1.
#[must_use]
pub fn share(share: Option<f64>) -> String {
    share.map_or_else(|| "-".to_owned(), |share| format!("{:.1} %", share * 100.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_and_with_their_unit() {
        let sizes = [999, 1_000, 5_312_345, 1_200_000_000].map(size);
        assert_eq!(sizes, ["999 B", "1.0 kB", "5.31 MB", "1.20 GB"]);
        assert_eq!([0.0004, 0.21, 1.3, 95.0].map(time), ["0.4 ms", "210 ms", "1.3 s", "95 s"]);
        assert_eq!(
            [-1.0, 59.9, 3599.0, 7500.0, 1e5].map(age),
            ["0 s", "59 s", "59 min", "2 h 5 min", "1 d 3 h"]
        );
        assert_eq!([percent(40, 41), percent(1, 0), share(Some(0.985))], ["97.6 %", "-", "98.5 %"]);
    }
}
