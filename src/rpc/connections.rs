//! ConnectionService over gRPC.

use std::sync::Arc;

use tonic::{Request, Response, Status};

use super::convert;
use super::status::{Refusal, SlugOf};
use crate::connections::ConnectionDesk;
use crate::model::Violation;
use crate::model::connection::{Connection, CustomerUris};
use crate::pb;
use crate::pb::connection_service_server::ConnectionService;

pub(super) struct ConnectionRpc {
    desk: Arc<ConnectionDesk>,
    public_origin: String,
}

impl ConnectionRpc {
    pub(super) fn new(desk: Arc<ConnectionDesk>, public_origin: String) -> Self {
        Self { desk, public_origin }
    }

    fn shown(&self, connection: &Connection) -> pb::Connection {
        convert::connection_to_pb(connection, &CustomerUris::new(&self.public_origin, &connection.slug))
    }
}

fn wrong(slug: &SlugOf) -> impl Fn(Vec<Violation>) -> Status + '_ {
    |violations| slug.refused(Refusal::violations(violations))
}

#[tonic::async_trait]
impl ConnectionService for ConnectionRpc {
    async fn create_connection(
        &self,
        request: Request<pb::CreateConnectionRequest>,
    ) -> Result<Response<pb::CreateConnectionResponse>, Status> {
        let connection = request.into_inner().connection.unwrap_or_default();
        let slug = SlugOf::request("CreateConnection", &connection.slug);
        let new = convert::new_connection(connection).map_err(wrong(&slug))?;
        let created = self.desk.create(new).await.map_err(|error| slug.refused(error.into()))?;
        slug.changed(created.revision);
        Ok(Response::new(pb::CreateConnectionResponse { connection: Some(self.shown(&created)) }))
    }

    async fn get_connection(
        &self,
        request: Request<pb::GetConnectionRequest>,
    ) -> Result<Response<pb::GetConnectionResponse>, Status> {
        let request = request.into_inner();
        let slug = SlugOf::request("GetConnection", &request.slug);
        let wanted = convert::slug_alone(&request.slug).map_err(wrong(&slug))?;
        let found = self.desk.get(&wanted).await.map_err(|error| slug.refused(error.into()))?;
        Ok(Response::new(pb::GetConnectionResponse { connection: Some(self.shown(&found)) }))
    }

    async fn list_connections(
        &self,
        request: Request<pb::ListConnectionsRequest>,
    ) -> Result<Response<pb::ListConnectionsResponse>, Status> {
        let slug = SlugOf::request("ListConnections", "");
        let (page_size, after) = convert::page(&request.into_inner()).map_err(wrong(&slug))?;
        let page = self.desk.list(after.as_ref(), page_size).await.map_err(|error| slug.refused(error.into()))?;
        Ok(Response::new(pb::ListConnectionsResponse {
            connections: page.connections.iter().map(|connection| self.shown(connection)).collect(),
            next_page_token: page.next.as_ref().map(convert::page_token).unwrap_or_default(),
        }))
    }

    async fn update_connection(
        &self,
        request: Request<pb::UpdateConnectionRequest>,
    ) -> Result<Response<pb::UpdateConnectionResponse>, Status> {
        let request = request.into_inner();
        let slug = SlugOf::request("UpdateConnection", request.connection.as_ref().map_or("", |connection| &connection.slug));
        let edit = convert::connection_edit(request).map_err(wrong(&slug))?;
        let updated = self.desk.update(edit).await.map_err(|error| slug.refused(error.into()))?;
        slug.changed(updated.revision);
        Ok(Response::new(pb::UpdateConnectionResponse { connection: Some(self.shown(&updated)) }))
    }

    async fn delete_connection(
        &self,
        request: Request<pb::DeleteConnectionRequest>,
    ) -> Result<Response<pb::DeleteConnectionResponse>, Status> {
        let request = request.into_inner();
        let slug = SlugOf::request("DeleteConnection", &request.slug);
        let (wanted, revision) = convert::deletion(&request).map_err(wrong(&slug))?;
        self.desk.delete(&wanted, revision).await.map_err(|error| slug.refused(error.into()))?;
        slug.changed(revision);
        Ok(Response::new(pb::DeleteConnectionResponse {}))
    }
}
