//! Which of several certificates for one name a client is shown, and when one is about to expire.
//!
//! One name may have a certificate for each type of key: a client that cannot verify ECDSA gets RSA. Of several of the
//! same type, the valid one that stays so longest is used, so that a file left behind never wins over its successor.

use std::cmp::Ordering;

/// When a certificate is valid (RFC 5280, section 4.1.2.5), in seconds since 1970, both ends included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Period {
    /// From when on.
    pub not_before_s: i64,
    /// Until when.
    pub not_after_s: i64,
}

/// What a certificate's period says at some time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Validity {
    /// It is valid.
    Valid,
    /// It is valid, and it is time to renew it.
    ExpiresSoon,
    /// It has expired.
    Expired,
    /// It is not valid yet.
    NotYetValid,
}

/// The type of a certificate's key, in the order of preference: the last is the cheapest for us.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum KeyType {
    /// RSA, which every client can verify.
    Rsa,
    /// Ed25519.
    Ed25519,
    /// ECDSA.
    Ecdsa,
}

/// What the choice between certificates for one name depends on.
#[derive(Clone, Copy, Debug)]
pub struct Candidate {
    /// Whether the client can verify it.
    pub fits_client: bool,
    /// When it is valid.
    pub period: Period,
    /// Whether it has the name itself, rather than a wildcard that covers it.
    pub exact: bool,
    /// The type of its key.
    pub key: KeyType,
}

impl Period {
    /// What it says at this time.
    #[must_use]
    pub fn at(self, now_s: i64) -> Validity {
        // A certificate of a few days is meant to be renewed shortly before its end.
        let lifetime_s = self.not_after_s.saturating_sub(self.not_before_s);
        let soon_s = self.not_after_s.saturating_sub(SOON_S.min(lifetime_s / 10));
        if now_s > self.not_after_s {
            Validity::Expired
        } else if now_s < self.not_before_s {
            Validity::NotYetValid
        } else if now_s > soon_s {
            Validity::ExpiresSoon
        } else {
            Validity::Valid
        }
    }

    /// Whole days until it ends; negative once it has expired.
    #[must_use]
    pub fn days_left(self, now_s: i64) -> i64 {
        self.not_after_s.saturating_sub(now_s).div_euclid(DAY_S)
    }
}

impl Validity {
    /// Every value.
    pub const ALL: [Self; 4] = [Self::Valid, Self::ExpiresSoon, Self::Expired, Self::NotYetValid];

    /// As operators and programs see it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Valid => "valid",
            Self::ExpiresSoon => "expires_soon",
            Self::Expired => "expired",
            Self::NotYetValid => "not_yet_valid",
        }
    }

    /// Whether clients accept it now.
    #[must_use]
    pub fn is_valid(self) -> bool {
        matches!(self, Self::Valid | Self::ExpiresSoon)
    }
}

/// Which of two certificates for one name is the better one; `Equal`: any.
///
/// What the client cannot verify or what is not valid is of no use to it, so that this decides first; then the more
/// exact name, the preferred type of key, and the later end.
#[must_use]
pub fn compare(one: &Candidate, other: &Candidate, now_s: i64) -> Ordering {
    let rank = |it: &Candidate| {
        (it.fits_client, it.period.at(now_s).is_valid(), it.exact, it.key, it.period.not_after_s)
    };
    rank(one).cmp(&rank(other))
}

const DAY_S: i64 = 24 * 3600;

/// How long before its end a certificate expires soon: two weeks, or a tenth of its lifetime where that is less.
const SOON_S: i64 = 14 * DAY_S;

#[cfg(test)]
mod tests {
    use super::*;

    const NOW_S: i64 = 1_800_000_000;

    fn days(from: i64, to: i64) -> Period {
        Period { not_before_s: NOW_S + from * DAY_S, not_after_s: NOW_S + to * DAY_S }
    }

    #[test]
    fn a_period_says_when_it_is_time() {
        let check = |period: Period, validity, left| {
            assert_eq!((period.at(NOW_S), period.days_left(NOW_S)), (validity, left), "{period:?}");
        };
        check(days(-60, 30), Validity::Valid, 30);
        check(days(-350, 14), Validity::Valid, 14);
        check(days(-352, 13), Validity::ExpiresSoon, 13);
        check(days(-76, 10), Validity::Valid, 10);
        check(days(-85, 5), Validity::ExpiresSoon, 5);
        check(days(-5, 1), Validity::Valid, 1);
        check(days(-60, 0), Validity::ExpiresSoon, 0);
        check(days(-60, -1), Validity::Expired, -1);
        check(days(1, 90), Validity::NotYetValid, 90);
        let one_second_ago = Period { not_before_s: 0, not_after_s: NOW_S - 1 };
        check(one_second_ago, Validity::Expired, -1);
        check(
            Period { not_before_s: i64::MAX, not_after_s: i64::MIN },
            Validity::Expired,
            i64::MIN / DAY_S - 1,
        );
    }

    #[test]
    fn the_better_certificate_wins() {
        let best = Candidate { fits_client: true, period: days(-1, 90), exact: true, key: KeyType::Ecdsa };
        let worse = [
            Candidate { period: days(-1, 80), ..best },
            Candidate { key: KeyType::Rsa, period: days(-1, 900), ..best },
            Candidate { exact: false, period: days(-1, 900), ..best },
            Candidate { period: days(-90, -1), ..best },
            Candidate { period: days(1, 900), ..best },
            Candidate { fits_client: false, period: days(-1, 900), ..best },
        ];
        for other in worse {
            assert_eq!(compare(&best, &other, NOW_S), Ordering::Greater, "{other:?}");
            assert_eq!(compare(&other, &best, NOW_S), Ordering::Less, "{other:?}");
        }
        // What a client can use counts more than what we like.
        let valid_rsa = Candidate { key: KeyType::Rsa, ..best };
        let expired_ecdsa = Candidate { period: days(-90, -1), ..best };
        assert_eq!(compare(&valid_rsa, &expired_ecdsa, NOW_S), Ordering::Greater);
        let wildcard = Candidate { exact: false, ..best };
        assert_eq!(compare(&wildcard, &expired_ecdsa, NOW_S), Ordering::Greater);
        let unfit = Candidate { fits_client: false, ..best };
        assert_eq!(compare(&expired_ecdsa, &unfit, NOW_S), Ordering::Greater);
    }
}
