//! The spellings of an IPv4 address: one to four numbers, decimal or hexadecimal, of which the last fills what is left.
//! Resolvers read all of them (`127.1`, `0x7f000001`, `2130706433`), so a text of this shape is never a host name.
//!
//! A number with a leading zero is octal to some programs and decimal to others. It is taken where both agree.

use std::net::Ipv4Addr;

/// What a host text is to the IPv4 rules.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Ipv4Text {
    /// An address.
    Addr(Ipv4Addr),
    /// Its last label is a number, so it can be nothing else than an address, but it is none.
    Malformed(&'static str),
    /// Not a number at the end: perhaps a name.
    NotANumber,
}

/// Reads a host text by the IPv4 rules.
pub(super) fn read(text: &str) -> Ipv4Text {
    if let Ok(addr) = text.parse::<Ipv4Addr>() {
        return Ipv4Text::Addr(addr);
    }
    let last = text.rsplit('.').next().unwrap_or(text);
    if !is_number(last) {
        return Ipv4Text::NotANumber;
    }
    match numbers(text) {
        Ok(addr) => Ipv4Text::Addr(addr),
        Err(expected) => Ipv4Text::Malformed(expected),
    }
}

fn is_number(label: &str) -> bool {
    let bytes = label.as_bytes();
    match hex_digits(label) {
        Some(digits) => digits.bytes().all(|b| b.is_ascii_hexdigit()),
        None => !bytes.is_empty() && bytes.iter().all(u8::is_ascii_digit),
    }
}

fn hex_digits(label: &str) -> Option<&str> {
    label
        .strip_prefix("0x")
        .or_else(|| label.strip_prefix("0X"))
}

fn numbers(text: &str) -> Result<Ipv4Addr, &'static str> {
    let mut parts = [0u64; 4];
    let mut count = 0;
    for label in text.split('.') {
        let part = parts
            .get_mut(count)
            .ok_or("at most four numbers in an IPv4 address")?;
        *part = number(label)?;
        count += 1;
    }
    let (last, leading) = parts[..count].split_last().ok_or("an IPv4 address")?;
    if leading.iter().any(|part| *part > 255) {
        return Err("numbers up to 255 in an IPv4 address");
    }
    let free_bytes = 4 - leading.len();
    if *last >= 1 << (8 * free_bytes) {
        return Err("a last number that fits the rest of an IPv4 address");
    }
    let mut value = *last;
    for (at, part) in leading.iter().enumerate() {
        value |= part << (8 * (3 - at));
    }
    // At most 32 bits are set: each leading part has 8, and the last has what they leave.
    u32::try_from(value)
        .map(Ipv4Addr::from_bits)
        .map_err(|_| "an IPv4 address")
}

fn number(label: &str) -> Result<u64, &'static str> {
    let too_large = "numbers up to 4294967295 in an IPv4 address";
    if !is_number(label) {
        return Err("only numbers before the last number of an IPv4 address");
    }
    if let Some(digits) = hex_digits(label) {
        let digits = digits.trim_start_matches('0');
        return if digits.is_empty() {
            Ok(0)
        } else {
            u32::from_str_radix(digits, 16)
                .map(u64::from)
                .map_err(|_| too_large)
        };
    }
    let digits = label.trim_start_matches('0');
    let leading_zero = label.len() > 1 && digits.len() < label.len();
    let is_same_in_octal = matches!(digits, "" | "1" | "2" | "3" | "4" | "5" | "6" | "7");
    if leading_zero && !is_same_in_octal {
        return Err("no leading zero: it is octal to some programs and decimal to others");
    }
    if digits.is_empty() {
        Ok(0)
    } else {
        digits.parse::<u32>().map(u64::from).map_err(|_| too_large)
    }
}
