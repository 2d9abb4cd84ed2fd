//! Resident memory of this process.

use std::fs::File;
use std::io::Read;

/// `VmHWM` in KiB. Unlike `getrusage`, it begins anew with the program that runs now. Reads into an array on the
/// stack, so as not to measure an allocation of its own.
pub fn peak_kib() -> u64 {
    kib("/proc/self/status", "VmHWM:")
}

/// What is resident now, in KiB, exactly. Allocates nothing either.
pub fn now_kib() -> u64 {
    kib("/proc/self/smaps_rollup", "Rss:")
}

fn kib(file: &str, name: &str) -> u64 {
    let mut text = [0; 4096];
    let length = File::open(file).and_then(|mut file| file.read(&mut text)).expect("a file that is readable");
    std::str::from_utf8(&text[..length])
        .ok()
        .and_then(|text| text.lines().find_map(|line| line.strip_prefix(name)))
        .and_then(|value| value.trim().strip_suffix(" kB")?.trim().parse().ok())
        .expect("a line of that name, in kB")
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_peak_is_at_least_what_was_just_touched() {
        let touched = vec![1_u8; 8 << 20];
        assert!(super::peak_kib() >= 8 << 10);
        assert!(super::now_kib() >= 8 << 10);
        assert!(std::hint::black_box(touched).iter().all(|byte| *byte == 1));
    }
}
