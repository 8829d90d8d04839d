//! IdentityService over gRPC: parses requests, calls `identity_token`, and converts results.

use std::sync::Arc;

use tonic::{Request, Response, Status};

use super::refusal::reject;
use crate::identity_token::IdentityTokens;
use crate::pb;
use crate::pb::identity_service_server::IdentityService;

pub(in crate::server) struct IdentityRpc {
    identity_tokens: Arc<IdentityTokens>,
}

impl IdentityRpc {
    pub(in crate::server) fn new(identity_tokens: Arc<IdentityTokens>) -> Self {
        Self { identity_tokens }
    }
}

#[tonic::async_trait]
impl IdentityService for IdentityRpc {
    async fn get_identity(
        &self,
        request: Request<pb::GetIdentityRequest>,
    ) -> Result<Response<pb::GetIdentityResponse>, Status> {
        let token = request.into_inner().identity_token;
        let identity = self.identity_tokens.verify(&token).await.map_err(reject)?;
        Ok(Response::new(pb::GetIdentityResponse { identity: Some(identity.into()) }))
    }

    async fn list_signing_keys(
        &self,
        _request: Request<pb::ListSigningKeysRequest>,
    ) -> Result<Response<pb::ListSigningKeysResponse>, Status> {
        self.identity_tokens.ready().map_err(reject)?;
        Ok(Response::new(pb::ListSigningKeysResponse { jwks: self.identity_tokens.jwks() }))
    }
}
