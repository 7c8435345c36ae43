//! Names of virtual block devices (xen-vbd-interface(7), "Concrete encoding in the VBD interface").

use core::fmt;

/// The letters that a disk's name begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Xvd,
    Sd,
    Hd,
}

/// A device number, as it stands in `device/vbd/…`. It displays as the name that `xl` and Linux use, such as
/// `xvdb` or `xvda2`; a number that encodes none displays as `vbd-` and the number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Vdev(pub u32);

impl Vdev {
    /// Type, disk and partition; partition 0 is the whole disk.
    fn decode(self) -> Option<(Kind, u32, u32)> {
        let number = self.0;
        if number >> 28 == 1 {
            return Some((Kind::Xvd, (number >> 8) & 0xf_ffff, number & 0xff));
        }
        let minor = number & 0xff;
        match number >> 8 {
            202 => Some((Kind::Xvd, minor >> 4, minor & 0xf)),
            8 => Some((Kind::Sd, minor >> 4, minor & 0xf)),
            // Two disks on each of two controllers.
            3 if minor < 0x80 => Some((Kind::Hd, minor >> 6, minor & 0x3f)),
            22 if minor < 0x80 => Some((Kind::Hd, 2 + (minor >> 6), minor & 0x3f)),
            _ => None,
        }
    }
}

impl fmt::Display for Vdev {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some((kind, disk, partition)) = self.decode() else {
            return write!(f, "vbd-{}", self.0);
        };
        f.write_str(match kind {
            Kind::Xvd => "xvd",
            Kind::Sd => "sd",
            Kind::Hd => "hd",
        })?;
        write_letters(f, disk)?;
        if partition > 0 {
            write!(f, "{partition}")
        } else {
            Ok(())
        }
    }
}

/// Disk 0 is `a`, 25 is `z`, 26 is `aa`. Twenty bits of disk number need five letters.
fn write_letters(f: &mut fmt::Formatter<'_>, disk: u32) -> fmt::Result {
    let mut letters = [0u8; 5];
    let mut at = letters.len();
    let mut left = disk + 1;
    while left > 0 {
        at -= 1;
        left -= 1;
        letters[at] = b'a' + (left % 26) as u8;
        left /= 26;
    }
    letters[at..]
        .iter()
        .try_for_each(|&letter| fmt::Write::write_char(f, letter.into()))
}

#[cfg(test)]
mod tests {
    use super::Vdev;

    #[test]
    fn names() {
        for (number, name) in [
            (51712, "xvda"),
            (51728, "xvdb"),
            (51713, "xvda1"),
            (51952, "xvdp"),
            ((1 << 28) | (16 << 8), "xvdq"),
            ((1 << 28) | (536 << 8) | 37, "xvdtq37"),
            ((1 << 28) | (((1 << 20) - 1) << 8), "xvdbgqcv"),
            (2048, "sda"),
            (2067, "sdb3"),
            (768, "hda"),
            (832, "hdb"),
            (5632, "hdc"),
            (5634, "hdc2"),
            (5696, "hdd"),
            (768 + 128, "vbd-896"),
            (0, "vbd-0"),
            (2 << 28, "vbd-536870912"),
            (u32::MAX, "vbd-4294967295"),
        ] {
            assert_eq!(Vdev(number).to_string(), name);
        }
    }
}
