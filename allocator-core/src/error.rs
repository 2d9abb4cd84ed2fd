//! Why a request was refused, and what kind of misuse was found.

use core::fmt;

/// Why memory was refused. It becomes a null pointer at the `GlobalAlloc` boundary and nowhere else.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AllocError {
    /// Nothing that could be given back makes room for it.
    TooLarge,
    /// The system refused; it may agree later.
    OutOfMemory,
}

/// Why a setting was not taken; what was set before is kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum ConfigError {
    /// More is in use than the limit would allow.
    BelowUse,
    /// A mark that must not be above another one is.
    OutOfOrder,
}

impl ConfigError {
    /// What is wrong, in words.
    pub const fn what(self) -> &'static str {
        match self {
            ConfigError::BelowUse => "less than what is in use",
            ConfigError::OutOfOrder => "not in the order min, low or soft limit, high or limit",
        }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.what())
    }
}

#[cfg(feature = "std")]
const _: () = {
    extern crate std;
    impl std::error::Error for ConfigError {}
};

/// What is wrong with a pointer that was handed back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Misuse {
    /// The memory is free: it was given back before, or never handed out.
    DoubleFree,
    /// The pointer is not in memory of this heap, or not any more.
    Foreign,
    /// The pointer is in memory of this heap but not where anything that can be handed out starts.
    NotAStart,
    /// The `Layout` is not the one that the memory was allocated with.
    WrongLayout,
}

impl Misuse {
    /// What is wrong, in words.
    pub const fn what(self) -> &'static str {
        match self {
            Misuse::DoubleFree => "double free, or never allocated",
            Misuse::Foreign => "not allocated here, or back with the system",
            Misuse::NotAStart => "not the start of an allocation",
            Misuse::WrongLayout => "not the layout it was allocated with",
        }
    }
}

impl fmt::Display for AllocError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            AllocError::TooLarge => "no arena or mapping can hold this many bytes",
            AllocError::OutOfMemory => "the system refused memory",
        })
    }
}

impl fmt::Display for Misuse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.what())
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use std::string::ToString;

    #[test]
    fn errors_are_told_apart_in_words() {
        assert_ne!(AllocError::TooLarge.to_string(), AllocError::OutOfMemory.to_string());
        assert_eq!(Misuse::DoubleFree.to_string(), Misuse::DoubleFree.what());
    }
}
