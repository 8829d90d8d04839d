//! Unpredictable bytes. Every room takes them from here as an argument, so that a test can fix them. clippy.toml forbids
//! the direct ways.

/// A source of unpredictable bytes.
pub trait Entropy: Send + Sync {
    /// Fills all of `bytes`.
    fn fill(&self, bytes: &mut [u8]);
}

/// The random number generator of the cryptographic library, seeded by the operating system.
#[derive(Debug, Default)]
pub struct SystemEntropy;

impl Entropy for SystemEntropy {
    fn fill(&self, bytes: &mut [u8]) {
        aws_lc_rs::rand::fill(bytes).expect("the operating system provides randomness");
    }
}
