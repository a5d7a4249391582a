//! Defences that can be taken away, so that a test can prove it would notice.
//!
//! A test that guards against a disaster is worth nothing if it passes without the defence. With the feature `mutants`,
//! which only the tests switch on, the environment's `LIFEBOAT_MUTANT` names one row of the table of threats (`7`), or one of several
//! defences of a row (`7b`); that defence is then missing. Without the feature nothing reads the environment, and
//! the compiler drops the question.

/// Whether the defence of this name has been taken away.
#[cfg(feature = "mutants")]
pub fn removes(defence: &str) -> bool {
    std::env::var_os("LIFEBOAT_MUTANT").is_some_and(|mutant| mutant == defence)
}

/// Whether the defence of this name has been taken away: never, in a program that people use.
#[cfg(not(feature = "mutants"))]
pub const fn removes(_defence: &str) -> bool {
    false
}
