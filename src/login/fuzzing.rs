//! The fuzzer's entry to states as a browser returns them.

use std::time::Duration;

use super::state::StateKeys;
use crate::entropy::Entropy;
use crate::model::login::{BrowserBinding, Callback};
use crate::model::slug::Slug;
use crate::model::time::UnixSeconds;
use crate::store::seal::{Keyring, MasterKey};

/// Only the state that was issued is admitted, and only for its account and browser.
pub fn admit(callback: &Callback) {
    let key = MasterKey::generate(&NoEntropy);
    let keys = StateKeys::new(&Keyring::new(vec![key]).expect("a key"), Duration::from_secs(900));
    let (slug, binding) = (
        Slug::parse("acme").expect("a slug"),
        BrowserBinding::new("binding-0123456789".to_owned()),
    );
    let (issued, ticket) = keys.issue(&NoEntropy, &slug, Some(&binding), NOW);
    if let Ok(admitted) =
        keys.admit(&callback.state, &callback.slug, callback.browser_binding.as_ref(), NOW)
    {
        assert!(
            callback.state.expose() == issued.expose()
                && callback.slug == slug
                && admitted.key == ticket.key
        );
        assert_eq!(
            callback.browser_binding.as_ref().map(BrowserBinding::expose),
            Some(binding.expose())
        );
    }
}

struct NoEntropy;

impl Entropy for NoEntropy {
    fn fill(&self, bytes: &mut [u8]) {
        bytes.fill(7);
    }
}

const NOW: UnixSeconds = UnixSeconds(1_800_000_000);
