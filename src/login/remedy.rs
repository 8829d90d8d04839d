//! What the remedy of a refused login names: the IdP's product, and the account's own values.

use super::Login;
use crate::model::connection::{ConnectionSettings, CustomerUris};
use crate::model::slug::Slug;
use crate::oidc::idps::IdpProduct;

/// The terms of an account's remedies.
#[derive(Debug)]
pub struct RemedyTerms {
    /// The product of its IdP.
    pub product: IdpProduct,
    /// Its redirect URI.
    pub redirect_uri: String,
    /// The authentication method that its connection states.
    pub auth_method: &'static str,
}

impl Login {
    /// The terms of an account, from memory: a refused login must not cost a read.
    pub async fn remedy_terms(&self, slug: &Slug) -> RemedyTerms {
        let connection = self.connections.cached(slug).await;
        let connection = connection.as_deref();
        let auth_method = ConnectionSettings::auth_method_text;
        RemedyTerms {
            product: connection.map_or(IdpProduct::Generic, IdpProduct::of_connection),
            redirect_uri: CustomerUris::new(&self.policy.public_origin, slug).redirect_uri(),
            auth_method: connection.map_or("", |connection| auth_method(&connection.settings)),
        }
    }
}
