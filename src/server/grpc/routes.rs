//! Which services each listener serves: LoginService and, if identity tokens are issued,
//! IdentityService for the web tier; ConnectionService for support; health and, if enabled,
//! reflection on both.

use std::sync::Arc;

use tonic::codec::CompressionEncoding;
use tonic::service::Routes;
use tonic_health::pb::health_server::HealthServer;

use super::connections::ConnectionRpc;
use super::health::HealthRpc;
use super::identity::IdentityRpc;
use super::login::LoginRpc;
use crate::connections::ConnectionAdmin;
use crate::identity_token::IdentityTokens;
use crate::login::Login;
use crate::login::attempts::AttemptLog;
use crate::pb;
use crate::pb::connection_service_server::ConnectionServiceServer;
use crate::pb::identity_service_server::IdentityServiceServer;
use crate::pb::login_service_server::LoginServiceServer;
use crate::server::Health;
use crate::tasks::Tasks;

/// What the services call.
pub struct Services {
    /// LoginService.
    pub login: Arc<Login>,
    /// IdentityService; `None`: no identity tokens are issued.
    pub identity_tokens: Option<Arc<IdentityTokens>>,
    /// ConnectionService.
    pub admin: Arc<ConnectionAdmin>,
    /// ConnectionService's list of login attempts.
    pub attempts: Arc<AttemptLog>,
    /// Scheme, host and port of the URIs that customers register.
    pub public_origin: String,
}

/// The routes of the login and the admin listener.
pub(in crate::server) fn routes(
    services: Services,
    health: &Health,
    has_reflection: bool,
    tasks: &Tasks,
) -> [Routes; 2] {
    let Services { login, identity_tokens, admin, attempts, public_origin } = services;
    let mut login_names = vec![LOGIN_SERVICE];
    let service = LoginServiceServer::new(LoginRpc::new(login, identity_tokens.clone()))
        .accept_compressed(CompressionEncoding::Gzip)
        .max_decoding_message_size(MAX_LOGIN_MESSAGE);
    let mut login_routes = Routes::new(service);
    if let Some(identity_tokens) = identity_tokens {
        let service = IdentityServiceServer::new(IdentityRpc::new(identity_tokens))
            .accept_compressed(CompressionEncoding::Gzip)
            .max_decoding_message_size(MAX_LOGIN_MESSAGE);
        login_routes = login_routes.add_service(service);
        login_names.push(IDENTITY_SERVICE);
    }
    let service = ConnectionRpc::new(admin, attempts, public_origin, tasks.clone());
    let service = ConnectionServiceServer::new(service)
        .accept_compressed(CompressionEncoding::Gzip)
        .max_decoding_message_size(MAX_ADMIN_MESSAGE);
    let admin_routes = Routes::new(service);
    let complete = |routes: Routes, names: &[&'static str]| {
        let health = HealthServer::new(HealthRpc::new(health.clone()));
        let routes = routes.add_service(health.max_decoding_message_size(MAX_HEALTH_MESSAGE));
        if has_reflection { with_reflection(routes, names) } else { routes }
    };
    [complete(login_routes, &login_names), complete(admin_routes, &[CONNECTION_SERVICE])]
}

/// grpc.reflection v1 and v1alpha for the services of one listener.
fn with_reflection(routes: Routes, services: &[&'static str]) -> Routes {
    let builder = || {
        let builder = tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(pb::DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            // grpcurl needs it to show the details of a refusal.
            .register_encoded_file_descriptor_set(tonic_types::pb::FILE_DESCRIPTOR_SET)
            .with_service_name("grpc.health.v1.Health");
        services.iter().fold(builder, |builder, service| builder.with_service_name(*service))
    };
    match (builder().build_v1(), builder().build_v1alpha()) {
        (Ok(v1), Ok(v1alpha)) => routes
            .add_service(v1.max_decoding_message_size(MAX_REFLECTION_MESSAGE))
            .add_service(v1alpha.max_decoding_message_size(MAX_REFLECTION_MESSAGE)),
        (Err(error), _) | (_, Err(error)) => {
            tracing::error!(%error, "failed to set up server reflection");
            routes
        }
    }
}

/// Name in health checks.
pub(in crate::server) const LOGIN_SERVICE: &str = pb::login_service_server::SERVICE_NAME;
/// Name in health checks.
pub(in crate::server) const CONNECTION_SERVICE: &str = pb::connection_service_server::SERVICE_NAME;
/// The service for other backends.
pub(in crate::server) const IDENTITY_SERVICE: &str = pb::identity_service_server::SERVICE_NAME;
/// Bytes, after decompression. An id_token_hint has at most 64 KiB, and everything else in a request is
/// smaller.
const MAX_LOGIN_MESSAGE: usize = 256 * 1024;
const MAX_ADMIN_MESSAGE: usize = 1024 * 1024;
/// The names of a service and of a symbol.
const MAX_HEALTH_MESSAGE: usize = 1024;
const MAX_REFLECTION_MESSAGE: usize = 4 * 1024;
