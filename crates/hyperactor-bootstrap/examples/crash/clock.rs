//! Time that processes can compare: the seconds since the system started, in steps of a hundredth.

/// The seconds since the system started.
pub(crate) fn now() -> f64 {
    let text = std::fs::read_to_string("/proc/uptime").unwrap_or_default();
    let seconds = text.split_whitespace().next().unwrap_or_default();
    seconds.parse().unwrap_or(f64::NAN)
}
