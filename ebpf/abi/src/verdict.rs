//! The order in which the firewall's rules decide. It is written down here and nowhere else in code:
//!
//! 1. networks: the longest that matches decides, and of two equal ones the one that allows. An allowed network
//!    passes whatever else is said, the rate included;
//! 2. autonomous systems: allowed, then denied;
//! 3. countries: allowed, then denied;
//! 4. the default;
//! 5. for whoever has passed other than by its network: the rate, first the address's, then its prefix's.

/// What the rules of one kind say of a source.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum Opinion {
    /// No rule is about it.
    #[default]
    None = 0,
    /// It may.
    Allow = 1,
    /// It may not.
    Deny = 2,
}

/// What becomes of a source, and which step said so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Verdict {
    /// Passes: no rule is about it, and the default is to allow.
    AllowedDefault = 0,
    /// Passes, exempt from the rate: an allowed network.
    AllowedCidr = 1,
    /// Passes: an allowed autonomous system.
    AllowedAsn = 2,
    /// Passes: an allowed country.
    AllowedCountry = 3,
    /// Refused: a denied network.
    DeniedCidr = 4,
    /// Refused: a denied autonomous system.
    DeniedAsn = 5,
    /// Refused: a denied country.
    DeniedCountry = 6,
    /// Refused: no rule is about it, and the default is to deny.
    DeniedDefault = 7,
    /// Refused: the address is too fast.
    RateAddress = 8,
    /// Refused: the address's prefix is too fast.
    RatePrefix = 9,
}

/// What the rules about the place of a source say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GeoOpinion {
    /// Of its autonomous system.
    pub asn: Opinion,
    /// Of its country.
    pub country: Opinion,
}

/// Steps 1 to 4. `geo` is asked only where its answer can matter. Also how user space compiles the kernel's
/// tables, whose values are these verdicts.
#[inline(always)]
pub fn judge(network: Opinion, geo: impl FnOnce() -> GeoOpinion, default: Opinion) -> Verdict {
    match network {
        Opinion::Allow => return Verdict::AllowedCidr,
        Opinion::Deny => return Verdict::DeniedCidr,
        Opinion::None => {}
    }
    let geo = geo();
    match (geo.asn, geo.country, default) {
        (Opinion::Allow, _, _) => Verdict::AllowedAsn,
        (Opinion::Deny, _, _) => Verdict::DeniedAsn,
        (_, Opinion::Allow, _) => Verdict::AllowedCountry,
        (_, Opinion::Deny, _) => Verdict::DeniedCountry,
        (_, _, Opinion::Deny) => Verdict::DeniedDefault,
        (_, _, Opinion::Allow | Opinion::None) => Verdict::AllowedDefault,
    }
}

/// Step 5. Each closure takes a token from its bucket and says whether there was one; the prefix loses none for
/// an address that has none left.
#[inline(always)]
pub fn rated(judged: Verdict, address: impl FnOnce() -> bool, prefix: impl FnOnce() -> bool) -> Verdict {
    if !judged.passes() || judged.rate_exempt() {
        judged
    } else if !address() {
        Verdict::RateAddress
    } else if !prefix() {
        Verdict::RatePrefix
    } else {
        judged
    }
}

impl Verdict {
    /// Every verdict, in order of its number.
    pub const ALL: [Self; 10] = [
        Self::AllowedDefault,
        Self::AllowedCidr,
        Self::AllowedAsn,
        Self::AllowedCountry,
        Self::DeniedCidr,
        Self::DeniedAsn,
        Self::DeniedCountry,
        Self::DeniedDefault,
        Self::RateAddress,
        Self::RatePrefix,
    ];

    /// Whether the source may go on.
    #[must_use]
    #[inline(always)]
    pub const fn passes(self) -> bool {
        (self as u32) < Self::DeniedCidr as u32
    }

    /// Whether no rate applies to it.
    #[must_use]
    #[inline(always)]
    pub const fn rate_exempt(self) -> bool {
        matches!(self, Self::AllowedCidr)
    }

    /// The verdict with this number, as it lies in a map.
    #[must_use]
    #[inline(always)]
    pub const fn from_number(number: u32) -> Option<Self> {
        // Spelled out: a table would be memory that the kernel's half has to ask for.
        Some(match number {
            0 => Self::AllowedDefault,
            1 => Self::AllowedCidr,
            2 => Self::AllowedAsn,
            3 => Self::AllowedCountry,
            4 => Self::DeniedCidr,
            5 => Self::DeniedAsn,
            6 => Self::DeniedCountry,
            7 => Self::DeniedDefault,
            8 => Self::RateAddress,
            9 => Self::RatePrefix,
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::Opinion::{Allow, Deny, None};
    use super::*;

    fn check(network: Opinion, asn: Opinion, country: Opinion, default: Opinion, expect: Verdict) {
        assert_eq!(judge(network, || GeoOpinion { asn, country }, default), expect);
    }

    #[test]
    fn the_first_kind_with_an_opinion_decides() {
        for (opinion, cidr, asn, country, default) in [
            (
                Allow,
                Verdict::AllowedCidr,
                Verdict::AllowedAsn,
                Verdict::AllowedCountry,
                Verdict::AllowedDefault,
            ),
            (Deny, Verdict::DeniedCidr, Verdict::DeniedAsn, Verdict::DeniedCountry, Verdict::DeniedDefault),
        ] {
            for later in [None, Allow, Deny] {
                for last in [None, Allow, Deny] {
                    check(opinion, later, last, last, cidr);
                    check(None, opinion, later, last, asn);
                    check(None, None, opinion, later, country);
                }
            }
            check(None, None, None, opinion, default);
        }
        check(None, None, None, None, Verdict::AllowedDefault);
    }

    #[test]
    fn the_rate_is_asked_of_those_who_pass_other_than_by_network() {
        for judged in Verdict::ALL {
            let rates = judged.passes() && judged != Verdict::AllowedCidr;
            let expect = |verdict| if rates { verdict } else { judged };
            assert_eq!(rated(judged, || false, || panic!("the prefix pays")), expect(Verdict::RateAddress));
            assert_eq!(rated(judged, || true, || false), expect(Verdict::RatePrefix));
            assert_eq!(rated(judged, || true, || true), judged);
        }
    }

    #[test]
    fn geo_is_not_asked_where_the_network_decides() {
        assert_eq!(judge(Deny, || panic!("asked"), Allow), Verdict::DeniedCidr);
    }

    #[test]
    fn numbers_are_stable_and_come_back() {
        for (number, verdict) in (0..).zip(Verdict::ALL) {
            assert_eq!((verdict as u32, Verdict::from_number(number)), (number, Some(verdict)));
            assert_eq!(verdict.passes(), number < 4);
        }
        assert_eq!(Verdict::from_number(10), Option::None);
    }
}
