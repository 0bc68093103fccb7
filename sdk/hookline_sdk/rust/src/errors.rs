//! What a host function says where it does not do what it was asked.

use std::fmt;

/// What a host function says where it does not do what it was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Error {
    /// A pointer or length outside memory.
    Memory,
    /// Too large.
    Size,
    /// The resource does not grant the permission.
    Denied,
    /// A malformed argument, or a cache that the resource does not name.
    Argument,
    /// A cap is reached.
    Cap,
    /// Not now.
    Unavailable,
    /// What a newer host may say.
    Other(i32),
}

impl Error {
    pub(crate) fn of(code: i32) -> Error {
        match code {
            -1 => Error::Memory,
            -2 => Error::Size,
            -3 => Error::Denied,
            -4 => Error::Argument,
            -5 => Error::Cap,
            -6 => Error::Unavailable,
            _ => Error::Other(code),
        }
    }

    /// As the guest ABI numbers it.
    pub fn code(self) -> i32 {
        match self {
            Error::Memory => -1,
            Error::Size => -2,
            Error::Denied => -3,
            Error::Argument => -4,
            Error::Cap => -5,
            Error::Unavailable => -6,
            Error::Other(code) => code,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Error::Memory => f.write_str("an argument lies outside memory"),
            Error::Size => f.write_str("it is too large"),
            Error::Denied => f.write_str("the resource does not grant the permission"),
            Error::Argument => f.write_str("an argument is malformed"),
            Error::Cap => f.write_str("a cap is reached"),
            Error::Unavailable => f.write_str("the host cannot do it now"),
            Error::Other(code) => write!(f, "the host answered {}", code),
        }
    }
}

impl std::error::Error for Error {}

/// Why a statement or a request came to nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// `timeout`, `denied`, `limit` or `failed`.
    pub cause: String,
    /// One sentence.
    pub message: String,
    /// Where PostgreSQL said it.
    pub sqlstate: Option<String>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{}: {}", self.cause, self.message)
    }
}

impl std::error::Error for Failure {}
