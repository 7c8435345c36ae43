//! Who has seen what a page holds.

/// The domain, if there is one, that has seen the bytes of a page: those of its present frame, and the rest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Exposure {
    frame: Option<u16>,
    rest: Option<u16>,
}

impl Exposure {
    /// The frame's bytes are new.
    pub fn written(&mut self) {
        self.frame = None;
    }

    /// The page is about to be shown to a domain. Returns whether the rest must be zeroed first.
    #[must_use]
    pub fn show(&mut self, domid: u16) -> bool {
        let unseen = self.rest != Some(domid);
        *self = Self {
            frame: Some(domid),
            rest: Some(domid),
        };
        unseen
    }

    /// There is no frame any more: everything is the rest.
    pub fn retire(&mut self) {
        if self.frame != self.rest {
            self.rest = None;
        }
        self.frame = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_same_domain_has_seen_is_left_in_place() {
        let mut page = Exposure::default();
        assert!(page.show(0), "nobody has seen it");
        page.retire();
        assert!(!page.show(0), "that domain has seen everything");
        page.retire();
        page.written();
        assert!(!page.show(0), "the frame is to be seen, and the rest was");
        page.written();
        page.retire();
        assert!(
            page.show(0),
            "a frame that it has not seen is part of the rest now"
        );
        assert!(page.show(1), "another domain");
        page.retire();
        assert!(page.show(0), "what the other one saw is not known to this one");
    }

    /// Against the bytes themselves: each is a secret of nobody, or known to a set of domains.
    #[test]
    fn agrees_with_a_model() {
        let mut random = 7u64;
        let mut next = |below: u64| {
            random = random.wrapping_mul(6364136223846793005).wrapping_add(1);
            (random >> 33) % below
        };
        let mut page = Exposure::default();
        // Bits: which domains know the frame's bytes, and the rest's.
        let (mut frame, mut rest) = (0u8, 0u8);
        for _ in 0..if cfg!(miri) { 200 } else { 10_000 } {
            match next(3) {
                0 => {
                    page.written();
                    frame = 0;
                }
                1 => {
                    let domid = next(2) as u16;
                    if page.show(domid) {
                        rest = 0xff;
                    }
                    frame |= 1 << domid;
                    assert_ne!(rest & 1 << domid, 0, "a secret is shown");
                }
                _ => {
                    page.retire();
                    // The next frame may lie elsewhere in the page.
                    rest &= frame;
                    frame = 0;
                }
            }
        }
    }
}
