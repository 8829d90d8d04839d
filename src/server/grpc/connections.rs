//! ConnectionService over gRPC: parses requests, calls `connections`, and converts results.

use std::sync::Arc;

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::auth::actor;
use super::convert;
use super::refusal::{log_change, reject};
use crate::connections::{ConnectionAdmin, ConnectionError};
use crate::login::attempts::AttemptLog;
use crate::model::check::CheckResult;
use crate::model::connection::Connection;
use crate::model::unreadable::{StoredConnection, slug_of};
use crate::pb;
use crate::pb::check_connection_response::Found;
use crate::pb::connection_service_server::ConnectionService;
use crate::tasks::Tasks;
use crate::telemetry::{BackgroundTask, call};

pub(in crate::server) struct ConnectionRpc {
    admin: Arc<ConnectionAdmin>,
    attempts: Arc<AttemptLog>,
    public_origin: String,
    tasks: Tasks,
}

impl ConnectionRpc {
    pub(in crate::server) fn new(
        admin: Arc<ConnectionAdmin>,
        attempts: Arc<AttemptLog>,
        public_origin: String,
        tasks: Tasks,
    ) -> Self {
        Self { admin, attempts, public_origin, tasks }
    }

    fn to_pb(&self, connection: &Connection) -> pb::Connection {
        convert::connection_to_pb(connection, &self.public_origin)
    }

    /// With the summaries of their logins, of which this replica's latest are written first.
    async fn stored_to_pb(
        &self,
        stored: &[StoredConnection],
    ) -> Result<Vec<pb::Connection>, ConnectionError> {
        self.attempts.flush().await;
        let mut logins = self.admin.logins(stored).await?;
        let to_pb = |stored: &StoredConnection| {
            let logins = logins.remove(slug_of(stored)).unwrap_or_default();
            let connection = convert::stored_to_pb(stored, &self.public_origin);
            pb::Connection { logins: Some(logins.into()), ..connection }
        };
        Ok(stored.iter().map(to_pb).collect())
    }
}

#[tonic::async_trait]
impl ConnectionService for ConnectionRpc {
    async fn create_connection(
        &self,
        request: Request<pb::CreateConnectionRequest>,
    ) -> Result<Response<pb::CreateConnectionResponse>, Status> {
        let actor = actor();
        let request = request.into_inner();
        let new = convert::new_connection(request, |account| self.admin.addresses(account));
        let new = new.map_err(reject)?;
        let is_written = !new.validate_only;
        let created = self.admin.create(new, &actor).await.map_err(reject)?;
        if is_written {
            log_change(created.connection.revision);
        }
        let connection = Some(self.to_pb(&created.connection));
        let changed_fields = created.changed_fields;
        Ok(Response::new(pb::CreateConnectionResponse { connection, changed_fields }))
    }

    async fn get_connection(
        &self,
        request: Request<pb::GetConnectionRequest>,
    ) -> Result<Response<pb::GetConnectionResponse>, Status> {
        let request = request.into_inner();
        let slug = convert::slug_alone(&request.slug).map_err(reject)?;
        let stored = self.admin.stored(&slug).await.map_err(reject)?;
        let connection = self.stored_to_pb(&[stored]).await.map_err(reject)?.pop();
        Ok(Response::new(pb::GetConnectionResponse { connection }))
    }

    async fn list_connections(
        &self,
        request: Request<pb::ListConnectionsRequest>,
    ) -> Result<Response<pb::ListConnectionsResponse>, Status> {
        let (page_size, after) = convert::page(&request.into_inner()).map_err(reject)?;
        let page = self.admin.list(after, page_size).await.map_err(reject)?;
        Ok(Response::new(pb::ListConnectionsResponse {
            connections: self.stored_to_pb(&page.items).await.map_err(reject)?,
            next_page_token: page.next.as_ref().map(convert::page_token).unwrap_or_default(),
        }))
    }

    async fn update_connection(
        &self,
        request: Request<pb::UpdateConnectionRequest>,
    ) -> Result<Response<pb::UpdateConnectionResponse>, Status> {
        let actor = actor();
        let edit = convert::connection_edit(request.into_inner()).map_err(reject)?;
        let is_written = !edit.validate_only;
        let updated = self.admin.update(edit, &actor).await.map_err(reject)?;
        if is_written && !updated.changed_fields.is_empty() {
            log_change(updated.connection.revision);
        }
        Ok(Response::new(pb::UpdateConnectionResponse {
            connection: Some(self.to_pb(&updated.connection)),
            effect: updated.effect.to_string(),
            changed_fields: updated.changed_fields,
        }))
    }

    async fn delete_connection(
        &self,
        request: Request<pb::DeleteConnectionRequest>,
    ) -> Result<Response<pb::DeleteConnectionResponse>, Status> {
        let actor = actor();
        let request = request.into_inner();
        let parsed = convert::slug_and_revision(&request.slug, request.revision);
        let (slug, revision) = parsed.map_err(reject)?;
        self.admin.delete(&slug, revision, &actor).await.map_err(reject)?;
        log_change(revision);
        Ok(Response::new(pb::DeleteConnectionResponse {}))
    }

    type CheckConnectionStream = ReceiverStream<Result<pb::CheckConnectionResponse, Status>>;

    async fn check_connection(
        &self,
        request: Request<pb::CheckConnectionRequest>,
    ) -> Result<Response<Self::CheckConnectionStream>, Status> {
        let actor = actor();
        let request = convert::check_request(request.into_inner()).map_err(reject)?;
        let target = self.admin.check_target(request, &actor).await.map_err(reject)?;
        // There is room for every result, so that a check never waits for a slow reader.
        let (sender, results) = mpsc::channel(64);
        let admin = Arc::clone(&self.admin);
        let work = async move {
            let send = |found| {
                let _ = sender.try_send(found);
            };
            let mut report = |result: CheckResult| {
                send(Ok(convert::found(Found::Result(result.into()))));
            };
            send(match admin.check(&target, &mut report).await {
                Ok(record) => {
                    let summary = convert::summary_of_check(&record, &target.connection);
                    Ok(convert::found(Found::Summary(summary)))
                }
                Err(error) => Err(reject(error)),
            });
        };
        self.tasks.spawn(BackgroundTask::ConnectionCheck, call::within_current(work));
        Ok(Response::new(ReceiverStream::new(results)))
    }

    async fn activate_connection(
        &self,
        request: Request<pb::ActivateConnectionRequest>,
    ) -> Result<Response<pb::ActivateConnectionResponse>, Status> {
        let actor = actor();
        let request = request.into_inner();
        let parsed = convert::slug_and_revision(&request.slug, request.revision);
        let (slug, revision) = parsed.map_err(reject)?;
        // The test login that allows the activation may not be written yet.
        self.attempts.flush().await;
        let pb::ActivateConnectionRequest { force, validate_only, .. } = request;
        let activated = self.admin.activate(&slug, revision, force, validate_only, &actor).await;
        let activated = activated.map_err(reject)?;
        if !validate_only {
            log_change(activated.revision);
        }
        let connection = Some(self.to_pb(&activated));
        Ok(Response::new(pb::ActivateConnectionResponse { connection }))
    }

    async fn get_setup_guide(
        &self,
        request: Request<pb::GetSetupGuideRequest>,
    ) -> Result<Response<pb::GetSetupGuideResponse>, Status> {
        let request = request.into_inner();
        let (slug, product) = convert::guide_request(&request).map_err(reject)?;
        let text = if request.ready {
            self.admin.ready_note(&slug).await
        } else {
            self.admin.guide(&slug, product).await
        };
        let markdown = text.map_err(reject)?;
        Ok(Response::new(pb::GetSetupGuideResponse { markdown }))
    }

    async fn list_login_attempts(
        &self,
        request: Request<pb::ListLoginAttemptsRequest>,
    ) -> Result<Response<pb::ListLoginAttemptsResponse>, Status> {
        let request = request.into_inner();
        let query = convert::attempts_request(&request).map_err(reject)?;
        self.attempts.flush().await;
        let list = self.admin.attempts(&query).await.map_err(reject)?;
        let attempt_to_pb = |attempt| convert::attempt_to_pb(attempt, &self.public_origin);
        Ok(Response::new(pb::ListLoginAttemptsResponse {
            attempts: list.attempts.into_iter().map(attempt_to_pb).collect(),
            summary: Some(list.logins.into()),
        }))
    }

    async fn list_connection_changes(
        &self,
        request: Request<pb::ListConnectionChangesRequest>,
    ) -> Result<Response<pb::ListConnectionChangesResponse>, Status> {
        let request = request.into_inner();
        let parsed = convert::changes_request(&request);
        let (slug, before, limit) = parsed.map_err(reject)?;
        let changes = self.admin.changes(&slug, before, limit).await;
        let changes = changes.map_err(reject)?;
        Ok(Response::new(pb::ListConnectionChangesResponse {
            changes: changes.items.into_iter().map(Into::into).collect(),
            next_page_token: changes.next.map(|id| id.to_string()).unwrap_or_default(),
        }))
    }

    async fn restore_connection(
        &self,
        request: Request<pb::RestoreConnectionRequest>,
    ) -> Result<Response<pb::RestoreConnectionResponse>, Status> {
        let actor = actor();
        let restore = convert::restoration(&request.into_inner()).map_err(reject)?;
        let restored = self.admin.restore(restore, &actor).await.map_err(reject)?;
        if !restored.changed_fields.is_empty() {
            log_change(restored.connection.revision);
        }
        Ok(Response::new(pb::RestoreConnectionResponse {
            connection: Some(self.to_pb(&restored.connection)),
            effect: restored.effect.to_string(),
            changed_fields: restored.changed_fields,
        }))
    }
}
