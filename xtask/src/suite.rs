//! The Debian releases that the bed runs on.

use clap::ValueEnum;

/// A Debian release, named by the version of Xen that it ships.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Suite {
    /// Debian 13: Xen 4.20, Linux 6.12.
    #[value(name = "4.20", alias = "trixie")]
    Trixie,
    /// Debian 12: Xen 4.17, Linux 6.1.
    #[value(name = "4.17", alias = "bookworm")]
    Bookworm,
}

impl Suite {
    /// Every release, the default first.
    pub const ALL: [Suite; 2] = [Suite::Trixie, Suite::Bookworm];

    /// Debian's name of the release.
    pub fn codename(self) -> &'static str {
        match self {
            Suite::Trixie => "trixie",
            Suite::Bookworm => "bookworm",
        }
    }

    /// The version of Xen, as in its packages' names.
    pub fn xen(self) -> &'static str {
        match self {
            Suite::Trixie => "4.20",
            Suite::Bookworm => "4.17",
        }
    }
}
