//! `Retry-After` (RFC 9110 §10.2.3).

use std::time::{Duration, SystemTime};

use http::HeaderMap;
use http::header::{DATE, HeaderValue, RETRY_AFTER};

use crate::properties::input::Input;
use crate::proto::grant;

/// The last second of the year 9999: the dates of HTTP have four digits for it.
const LAST: u64 = 253_402_300_799;

const HOUR: Duration = Duration::from_secs(3600);

/// K-35: seconds, or a date in one of three formats, at any time; nothing else.
pub fn retry_after(input: &[u8]) {
    let mut input = Input::new(input);
    let now = match (input.flag(), input.duration()) {
        (false, since) => SystemTime::UNIX_EPOCH.checked_add(since),
        (true, before) => SystemTime::UNIX_EPOCH.checked_sub(before),
    };
    let Some(now) = now else { return };
    match input.below(3) {
        0 => dates_are_read(&mut input, now),
        1 => digits_are_read(&mut input, now),
        _ => anything(&String::from_utf8_lossy(input.rest()), now),
    }
}

/// What is read of `value` alone; a session takes an hour of it at most, and counts from the server's
/// own time where it knows it.
fn read(value: &str, now: SystemTime) -> Option<Duration> {
    let read = grant::pause(value, now);
    let Ok(retry_after) = HeaderValue::from_str(value) else { return read };
    let mut headers = HeaderMap::from_iter([(RETRY_AFTER, retry_after)]);
    // A field value that is not ASCII is no text.
    let expected = |now| {
        let pause = grant::pause(value, now).filter(|_| value.is_ascii())?;
        Some(pause.min(HOUR))
    };
    assert_eq!(grant::retry_after(&headers, now), expected(now), "{value}");
    let since = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    if now >= SystemTime::UNIX_EPOCH && since.as_secs() <= LAST {
        let date = HeaderValue::from_str(&httpdate::fmt_http_date(now)).expect("a date");
        headers.insert(DATE, date);
        let now = now - Duration::from_nanos(since.subsec_nanos().into());
        let epoch = SystemTime::UNIX_EPOCH;
        assert_eq!(grant::retry_after(&headers, epoch), expected(now), "{value}");
    }
    read
}

fn dates_are_read(input: &mut Input<'_>, now: SystemTime) {
    let date = SystemTime::UNIX_EPOCH + Duration::from_secs((input.u64() >> 26).min(LAST));
    let expected = Some(date.duration_since(now).unwrap_or_default());
    let imf = httpdate::fmt_http_date(date);
    // "Sun, 06 Nov 1994 08:49:37 GMT" has a fixed length.
    let [weekday, day, month, year, time] =
        [0..3, 5..7, 8..11, 12..16, 17..25].map(|range| &imf[range]);
    let asctime = format!("{weekday} {month} {:>2} {time} {year}", day.trim_start_matches('0'));
    let long = WEEKDAYS.iter().find(|long| long.starts_with(weekday)).expect("a weekday");
    let rfc850 = format!("{long}, {day}-{month}-{} {time} GMT", &year[2..]);
    let mut forms = vec![imf.clone(), format!(" {imf}\t"), asctime];
    // Two digits of a year are one of these years.
    if ("1970".."2070").contains(&year) {
        forms.push(rfc850);
    }
    for form in forms {
        assert_eq!(read(&form, now), expected, "{form}");
        anything(&form, now);
    }
}

fn digits_are_read(input: &mut Input<'_>, now: SystemTime) {
    let digits: String =
        (0..=input.below(40)).map(|_| char::from(b'0' + input.byte() % 10)).collect();
    let seconds = digits.bytes().fold(0_u64, |seconds, digit| {
        seconds.saturating_mul(10).saturating_add(u64::from(digit - b'0'))
    });
    assert_eq!(read(&digits, now), Some(Duration::from_secs(seconds)), "{digits}");
    for other in
        [format!("-{digits}"), format!("+{digits}"), format!("{digits}.5"), format!("{digits}s")]
    {
        assert_eq!(read(&other, now), None, "{other}");
    }
}

/// What is understood looks like digits or a date, and does not depend on the time that it is.
fn anything(value: &str, now: SystemTime) {
    let is_read = read(value, now).is_some();
    let shape = shape(value.trim());
    let is_digits = !shape.is_empty() && shape.bytes().all(|letter| letter == b'0');
    if is_digits {
        assert!(is_read, "{value}");
    }
    if is_read {
        assert!(is_digits || is_date(&shape), "{value}");
    }
    assert_eq!(is_read, read(value, SystemTime::UNIX_EPOCH).is_some());
}

/// Digits as `0`, letters as `A` and `a`, a word's further small letters dropped.
fn shape(value: &str) -> String {
    let mut shape = String::new();
    for character in value.chars() {
        match character {
            '0'..='9' => shape.push('0'),
            'A'..='Z' => shape.push('A'),
            'a'..='z' if shape.ends_with('a') => {}
            'a'..='z' => shape.push('a'),
            other => shape.push(other),
        }
    }
    shape
}

/// The shapes of RFC 9110 §5.6.7: `IMF-fixdate`, `asctime-date`, `rfc850-date`. In the last of them
/// `httpdate` takes whatever it is for the space before the time.
fn is_date(shape: &str) -> bool {
    let is_rfc850 = |shape: &str| {
        let space = shape.strip_prefix("Aa, 00-Aa-00")?.strip_suffix("00:00:00 AAA")?;
        (space.len() == 1).then_some(())
    };
    ["Aa, 00 Aa 0000 00:00:00 AAA", "Aa Aa 00 00:00:00 0000", "Aa Aa  0 00:00:00 0000"]
        .contains(&shape)
        || is_rfc850(shape).is_some()
}

const WEEKDAYS: [&str; 7] =
    ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"];
