//! IdentityService over gRPC.

use std::sync::Arc;

use tonic::{Request, Response, Status};

use super::status::CallContext;
use crate::identity_token::Identities;
use crate::pb;
use crate::pb::identity_service_server::IdentityService;

pub(in crate::server) struct IdentityRpc {
    identities: Arc<Identities>,
}

impl IdentityRpc {
    pub(in crate::server) fn new(identities: Arc<Identities>) -> Self {
        Self { identities }
    }
}

#[tonic::async_trait]
impl IdentityService for IdentityRpc {
    async fn get_identity(
        &self,
        request: Request<pb::GetIdentityRequest>,
    ) -> Result<Response<pb::GetIdentityResponse>, Status> {
        let token = request.into_inner().identity_token;
        let ctx = CallContext::new("GetIdentity", "");
        let identity =
            self.identities.verify(&token).await.map_err(|error| ctx.reject(error.into()))?;
        Ok(Response::new(pb::GetIdentityResponse { identity: Some(identity.into()) }))
    }

    async fn list_signing_keys(
        &self,
        _request: Request<pb::ListSigningKeysRequest>,
    ) -> Result<Response<pb::ListSigningKeysResponse>, Status> {
        let ctx = CallContext::new("ListSigningKeys", "");
        self.identities.ready().map_err(|error| ctx.reject(error.into()))?;
        Ok(Response::new(pb::ListSigningKeysResponse { jwks: self.identities.jwks() }))
    }
}
