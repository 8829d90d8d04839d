//! ConnectionService over gRPC.

use std::sync::Arc;

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::auth::actor;
use super::convert;
use super::status::{CallContext, Refusal};
use crate::connections::ConnectionAdmin;
use crate::model::Violation;
use crate::model::connection::{Connection, CustomerUris};
use crate::model::proving::{CheckResult, LoginSummary};
use crate::pb;
use crate::pb::connection_service_server::ConnectionService;
use crate::store::ATTEMPTS_KEPT;
use crate::telemetry::traces;

pub(in crate::server) struct ConnectionRpc {
    admin: Arc<ConnectionAdmin>,
    public_origin: String,
}

impl ConnectionRpc {
    pub(in crate::server) fn new(admin: Arc<ConnectionAdmin>, public_origin: String) -> Self {
        Self { admin, public_origin }
    }

    fn shown(&self, connection: &Connection) -> pb::Connection {
        convert::connection_to_pb(
            connection,
            &CustomerUris::new(&self.public_origin, &connection.slug),
        )
    }

    fn shown_with(&self, connection: &Connection, summary: LoginSummary) -> pb::Connection {
        pb::Connection { logins: Some(summary.into()), ..self.shown(connection) }
    }
}

fn reject_violations(ctx: &CallContext) -> impl Fn(Vec<Violation>) -> Status + '_ {
    |violations| ctx.reject(Refusal::violations(violations))
}

#[tonic::async_trait]
impl ConnectionService for ConnectionRpc {
    async fn create_connection(
        &self,
        request: Request<pb::CreateConnectionRequest>,
    ) -> Result<Response<pb::CreateConnectionResponse>, Status> {
        let actor = actor(&request);
        let connection = request.into_inner().connection.unwrap_or_default();
        let ctx = CallContext::new("CreateConnection", &connection.slug);
        let new = convert::new_connection(connection).map_err(reject_violations(&ctx))?;
        let created =
            self.admin.create(new, &actor).await.map_err(|error| ctx.reject(error.into()))?;
        ctx.log_change(created.revision);
        Ok(Response::new(pb::CreateConnectionResponse { connection: Some(self.shown(&created)) }))
    }

    async fn get_connection(
        &self,
        request: Request<pb::GetConnectionRequest>,
    ) -> Result<Response<pb::GetConnectionResponse>, Status> {
        let request = request.into_inner();
        let ctx = CallContext::new("GetConnection", &request.slug);
        let wanted = convert::slug_alone(&request.slug).map_err(reject_violations(&ctx))?;
        let found = self.admin.get(&wanted).await.map_err(|error| ctx.reject(error.into()))?;
        let summaries = self.admin.summaries(std::slice::from_ref(&found)).await;
        let summary = summaries
            .map_err(|error| ctx.reject(error.into()))?
            .remove(&wanted)
            .unwrap_or_default();
        Ok(Response::new(pb::GetConnectionResponse {
            connection: Some(self.shown_with(&found, summary)),
        }))
    }

    async fn list_connections(
        &self,
        request: Request<pb::ListConnectionsRequest>,
    ) -> Result<Response<pb::ListConnectionsResponse>, Status> {
        let ctx = CallContext::new("ListConnections", "");
        let (page_size, after) =
            convert::page(&request.into_inner()).map_err(reject_violations(&ctx))?;
        let page = self
            .admin
            .list(after.as_ref(), page_size)
            .await
            .map_err(|error| ctx.reject(error.into()))?;
        let summaries = self.admin.summaries(&page.connections).await;
        let mut summaries = summaries.map_err(|error| ctx.reject(error.into()))?;
        let mut shown = |connection: &Connection| {
            let summary = summaries.remove(&connection.slug).unwrap_or_default();
            self.shown_with(connection, summary)
        };
        Ok(Response::new(pb::ListConnectionsResponse {
            connections: page.connections.iter().map(&mut shown).collect(),
            next_page_token: page.next.as_ref().map(convert::page_token).unwrap_or_default(),
        }))
    }

    async fn update_connection(
        &self,
        request: Request<pb::UpdateConnectionRequest>,
    ) -> Result<Response<pb::UpdateConnectionResponse>, Status> {
        let actor = actor(&request);
        let request = request.into_inner();
        let ctx = CallContext::new(
            "UpdateConnection",
            request.connection.as_ref().map_or("", |connection| &connection.slug),
        );
        let edit = convert::connection_edit(request).map_err(reject_violations(&ctx))?;
        let updated =
            self.admin.update(edit, &actor).await.map_err(|error| ctx.reject(error.into()))?;
        ctx.log_change(updated.connection.revision);
        let connection = Some(self.shown(&updated.connection));
        Ok(Response::new(pb::UpdateConnectionResponse { connection, effect: updated.effect }))
    }

    async fn delete_connection(
        &self,
        request: Request<pb::DeleteConnectionRequest>,
    ) -> Result<Response<pb::DeleteConnectionResponse>, Status> {
        let actor = actor(&request);
        let request = request.into_inner();
        let ctx = CallContext::new("DeleteConnection", &request.slug);
        let (wanted, revision) = convert::deletion(&request).map_err(reject_violations(&ctx))?;
        self.admin
            .delete(&wanted, revision, &actor)
            .await
            .map_err(|error| ctx.reject(error.into()))?;
        ctx.log_change(revision);
        Ok(Response::new(pb::DeleteConnectionResponse {}))
    }

    type CheckConnectionStream = ReceiverStream<Result<pb::CheckConnectionResponse, Status>>;

    async fn check_connection(
        &self,
        request: Request<pb::CheckConnectionRequest>,
    ) -> Result<Response<Self::CheckConnectionStream>, Status> {
        let request = request.into_inner();
        let ctx = CallContext::new("CheckConnection", &request.slug);
        let request = convert::check_request(request).map_err(reject_violations(&ctx))?;
        let to_check =
            self.admin.to_check(request).await.map_err(|error| ctx.reject(error.into()))?;
        // Room for all results: telling never waits, whether somebody reads or not.
        let (found, results) = mpsc::channel(64);
        let admin = Arc::clone(&self.admin);
        let work = async move {
            let mut tell = |result: CheckResult| {
                let _ = found.try_send(Ok(convert::found(
                    pb::check_connection_response::Found::Result(result.into()),
                )));
            };
            let record = admin.check(&to_check, &mut tell).await;
            let last = match record {
                Ok(record) => {
                    let summary = convert::summary_of_check(&record, &to_check.connection);
                    Ok(convert::found(pb::check_connection_response::Found::Summary(summary)))
                }
                Err(error) => Err(ctx.reject(error.into())),
            };
            let _ = found.try_send(last);
        };
        tokio::spawn(traces::with_current(work));
        Ok(Response::new(ReceiverStream::new(results)))
    }

    async fn activate_connection(
        &self,
        request: Request<pb::ActivateConnectionRequest>,
    ) -> Result<Response<pb::ActivateConnectionResponse>, Status> {
        let actor = actor(&request);
        let request = request.into_inner();
        let ctx = CallContext::new("ActivateConnection", &request.slug);
        let (wanted, revision) = convert::slug_and_revision(&request.slug, request.revision)
            .map_err(reject_violations(&ctx))?;
        let activated = self.admin.activate(&wanted, revision, request.force, &actor).await;
        let activated = activated.map_err(|error| ctx.reject(error.into()))?;
        ctx.log_change(activated.revision);
        Ok(Response::new(pb::ActivateConnectionResponse {
            connection: Some(self.shown(&activated)),
        }))
    }

    async fn get_setup_guide(
        &self,
        request: Request<pb::GetSetupGuideRequest>,
    ) -> Result<Response<pb::GetSetupGuideResponse>, Status> {
        let request = request.into_inner();
        let ctx = CallContext::new("GetSetupGuide", &request.slug);
        let (wanted, vendor) = convert::guide_request(&request).map_err(reject_violations(&ctx))?;
        let text = if request.ready {
            self.admin.ready_note(&wanted).await
        } else {
            self.admin.guide(&wanted, vendor).await
        };
        let markdown = text.map_err(|error| ctx.reject(error.into()))?;
        Ok(Response::new(pb::GetSetupGuideResponse { markdown }))
    }

    async fn list_login_attempts(
        &self,
        request: Request<pb::ListLoginAttemptsRequest>,
    ) -> Result<Response<pb::ListLoginAttemptsResponse>, Status> {
        let request = request.into_inner();
        let ctx = CallContext::new("ListLoginAttempts", &request.slug);
        let (wanted, limit) =
            convert::slug_and_size(&request.slug, request.page_size, ATTEMPTS_KEPT, ATTEMPTS_KEPT)
                .map_err(reject_violations(&ctx))?;
        let found = self.admin.attempts(&wanted, limit).await;
        let (attempts, summary, connection) = found.map_err(|error| ctx.reject(error.into()))?;
        let redirect_uri = CustomerUris::new(&self.public_origin, &wanted).redirect_uri();
        let method = connection.settings.auth_method.name();
        Ok(Response::new(pb::ListLoginAttemptsResponse {
            attempts: attempts
                .into_iter()
                .map(|attempt| convert::attempt_to_pb(attempt, &redirect_uri, method))
                .collect(),
            summary: Some(summary.into()),
        }))
    }

    async fn list_connection_changes(
        &self,
        request: Request<pb::ListConnectionChangesRequest>,
    ) -> Result<Response<pb::ListConnectionChangesResponse>, Status> {
        let request = request.into_inner();
        let ctx = CallContext::new("ListConnectionChanges", &request.slug);
        let (wanted, before, limit) =
            convert::changes_request(&request).map_err(reject_violations(&ctx))?;
        let changes = self.admin.changes(&wanted, before, limit).await;
        let (changes, next) = changes.map_err(|error| ctx.reject(error.into()))?;
        Ok(Response::new(pb::ListConnectionChangesResponse {
            changes: changes.into_iter().map(Into::into).collect(),
            next_page_token: next.map(|id| id.to_string()).unwrap_or_default(),
        }))
    }
}
