//! `peerpanda-sso connection`: what support does with the customers' connections. A verb parses its
//! arguments, makes its calls, and prints the response: as text by `show`, or as JSON the message
//! itself.

mod apply;
mod document;
mod edit;
mod fields;
mod secrets;
mod show;

use std::io::{IsTerminal, Write};
use std::path::PathBuf;

use clap::{Args, Subcommand};
use prost::{Message, Name};

use super::client::{Admin, ClientArgs};
use super::reflection::{Mapped, print_message, reflect};
use super::{Failure, Outcome, Output, print_json, print_line};
use crate::pb;
use crate::pb::check_connection_response::Found;
use edit::mask;
use fields::Fields;
use secrets::SecretArgs;

/// Set up, check and repair the customers' connections.
///
/// A new connection is TESTING: logins work, and say that they are tests. To make it ACTIVE:
/// create, check, guide --ready (a note for the customer), a test login by the customer, activate.
///
/// Exit codes: 0 done; 1 the service refused a call, or a check failed; 2 wrong arguments or files;
/// 3 the service doesn't answer.
#[derive(Args)]
pub struct ConnectionCommand {
    #[command(flatten)]
    client: ClientArgs,
    /// Set the output format. JSON follows the proto's JSON mapping, with the proto's field names.
    #[arg(long, global = true, value_enum, default_value_t)]
    output: Output,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Create a connection, in state TESTING.
    ///
    /// Reads the secret from --client-secret-file (- is standard input), or asks for it without an
    /// echo.
    #[command(after_help = CREATE_EXAMPLE)]
    Create {
        /// The account's slug.
        slug: String,
        #[command(flatten)]
        fields: Fields,
        #[command(flatten)]
        secrets: SecretArgs,
    },
    /// Show a connection.
    Get {
        /// The account's slug.
        slug: String,
    },
    /// List all connections.
    List {
        /// List only connections with a secret that has expired or expires within 30 days.
        #[arg(long)]
        expiring: bool,
    },
    /// Change the fields of a connection that the flags name. An empty value clears a field.
    Update {
        /// The account's slug.
        slug: String,
        #[command(flatten)]
        fields: Fields,
        #[command(flatten)]
        secrets: SecretArgs,
        /// Change an ACTIVE connection even if the change has not passed a check. The record of
        /// changes says so.
        #[arg(long)]
        force: bool,
    },
    /// Delete a connection. Logins in progress can't be completed afterwards.
    Delete {
        /// The account's slug.
        slug: String,
        /// Skip the confirmation.
        #[arg(long)]
        yes: bool,
    },
    /// Check a connection at the customer's IdP.
    ///
    /// Says what is right, what is wrong, who must act, and how. Exits with 1 if a check fails.
    /// With flags, checks the connection as these flags would change it, without changing it.
    Check {
        /// The account's slug.
        slug: String,
        #[command(flatten)]
        fields: Fields,
        #[command(flatten)]
        secrets: SecretArgs,
    },
    /// Make a connection ACTIVE once its settings have passed a check and a test login.
    Activate {
        /// The account's slug.
        slug: String,
        /// Activate without a check and a test login. The record of changes says so.
        #[arg(long)]
        force: bool,
    },
    /// Print the customer's integration guide with the account's own values, in Markdown.
    Guide {
        /// The account's slug; it needn't have a connection yet.
        slug: String,
        /// Print the steps for this IdP. Default: the IdP of the connection.
        #[arg(long, value_parser = IDPS)]
        idp: Option<String>,
        /// Print the note that the connection is ready to test, with what the check has proven.
        #[arg(long, conflicts_with = "idp")]
        ready: bool,
    },
    /// Show recent login attempts, and what to do about those that failed.
    Attempts {
        /// The account's slug.
        slug: String,
        /// Show this many attempts, 1 to 200.
        #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(i32).range(1..=200))]
        last: i32,
    },
    /// Show the record of changes: what was changed, when and by whom.
    Changes {
        /// The account's slug.
        slug: String,
    },
    /// Create and update the connections of a YAML file.
    ///
    /// Leaves a connection alone that already is as the file says, and fields that an entry doesn't
    /// name. Goes on past an entry that is refused, and reports every mistake at the end. `export`
    /// writes this format.
    #[command(after_help = FILE_EXAMPLE)]
    Apply {
        /// Read this file; - is standard input.
        #[arg(short, long, value_name = "FILE")]
        file: PathBuf,
        /// Let the service validate the file, show what would change, and change nothing.
        #[arg(long)]
        dry_run: bool,
        /// Change and activate connections even without a check and a test login, as `update` and
        /// `activate` do.
        #[arg(long)]
        force: bool,
    },
    /// Print connections as YAML for `apply`, without secrets.
    ///
    /// Leaves out those whose stored settings can't be read, and exits with 1 then.
    Export {
        /// The accounts' slugs. Default: all.
        slugs: Vec<String>,
    },
}

impl ConnectionCommand {
    /// The format of the output and of errors.
    #[must_use]
    pub fn output(&self) -> Output {
        self.output
    }

    /// Runs the verb.
    ///
    /// # Errors
    /// See [`Failure`].
    pub async fn run(self) -> Result<Outcome, Failure> {
        let Self { client, output, verb } = self;
        match verb {
            Verb::Create { slug, fields, secrets } => {
                let mut edit = fields.edit(None)?;
                edit.set_secrets(&secrets.read(true)?);
                let connection = pb::Connection { slug: slug.clone(), ..edit.to_message().0 };
                let connection = Some(connection);
                let request = pb::CreateConnectionRequest { connection, validate_only: false };
                let created = client.admin().await?.create_connection(request).await?.into_inner();
                print(output, &created, |it| show::connection(&it.connection))?;
                hint(output, &format!("next: peerpanda-sso connection check {slug}"));
            }
            Verb::Get { slug } => {
                let request = pb::GetConnectionRequest { slug };
                let read = client.admin().await?.get_connection(request).await?.into_inner();
                print(output, &read, |it| show::connection(&it.connection))?;
            }
            Verb::List { expiring } => {
                let mut connections = list_all(&mut client.admin().await?).await?;
                connections.retain(|connection| !expiring || show::is_expiring(connection));
                let page = pb::ListConnectionsResponse { connections, ..Default::default() };
                print(output, &page, |it| show::list(&it.connections))?;
            }
            Verb::Update { slug, fields, secrets, force } => {
                let secrets = secrets.read(false)?;
                if fields.is_empty() && secrets.is_empty() {
                    let text = "nothing to change: name the fields to change by their flags";
                    return Err(Failure::Usage(text.to_owned()));
                }
                let admin = &mut client.admin().await?;
                let known = get(admin, &slug).await?;
                let mut edit = fields.edit(known.claim_mapping)?;
                edit.set_secrets(&secrets);
                let (connection, paths) = edit.to_message();
                let revision = known.revision;
                let request = pb::UpdateConnectionRequest {
                    connection: Some(pb::Connection { slug, revision, ..connection }),
                    update_mask: mask(paths),
                    force,
                    validate_only: false,
                };
                let updated = admin.update_connection(request).await?.into_inner();
                print(output, &updated, |it| show::connection(&it.connection))?;
                if updated.changed_fields.is_empty() {
                    hint(output, "note: nothing has changed");
                } else if !updated.effect.is_empty() {
                    hint(output, &format!("note: {}", updated.effect));
                }
            }
            Verb::Delete { slug, yes } => {
                let admin = &mut client.admin().await?;
                let revision = get(admin, &slug).await?.revision;
                if !yes {
                    secrets::confirm_deletion(&slug)?;
                }
                let request = pb::DeleteConnectionRequest { slug, revision };
                let deleted = admin.delete_connection(request).await?.into_inner();
                print(output, &deleted, |_| Ok(()))?;
            }
            Verb::Check { slug, fields, secrets } => {
                return check(&mut client.admin().await?, slug, fields, secrets, output).await;
            }
            Verb::Activate { slug, force } => {
                let admin = &mut client.admin().await?;
                let revision = get(admin, &slug).await?.revision;
                let request =
                    pb::ActivateConnectionRequest { slug, revision, force, validate_only: false };
                let activated = admin.activate_connection(request).await?.into_inner();
                print(output, &activated, |it| show::connection(&it.connection))?;
            }
            Verb::Guide { slug, idp, ready } => {
                let idp = format!("IDENTITY_PROVIDER_{}", idp.unwrap_or_default().to_uppercase());
                let idp = pb::IdentityProvider::from_str_name(&idp).unwrap_or_default();
                let request = pb::GetSetupGuideRequest { slug, idp: idp.into(), ready };
                let guide = client.admin().await?.get_setup_guide(request).await?.into_inner();
                print(output, &guide, |it| print_line(it.markdown.trim_end()))?;
            }
            Verb::Attempts { slug, last } => {
                let request = pb::ListLoginAttemptsRequest {
                    slug,
                    page_size: last,
                    ..pb::ListLoginAttemptsRequest::default()
                };
                let admin = &mut client.admin().await?;
                let attempts = admin.list_login_attempts(request).await?.into_inner();
                print(output, &attempts, show::attempts)?;
            }
            Verb::Changes { slug } => {
                let changes = list_changes(&mut client.admin().await?, slug).await?;
                let all = pb::ListConnectionChangesResponse { changes, ..Default::default() };
                print(output, &all, |it| show::changes(&it.changes))?;
            }
            Verb::Apply { file, dry_run, force } => {
                let entries = document::read(&file)?;
                let options = apply::Options { dry_run, force, output };
                return apply::run(client.admin().await?, entries, options).await;
            }
            Verb::Export { slugs } => {
                let admin = &mut client.admin().await?;
                let mut connections = Vec::new();
                for slug in &slugs {
                    connections.push(get(admin, slug).await?);
                }
                if slugs.is_empty() {
                    connections = list_all(admin).await?;
                }
                return export(connections);
            }
        }
        Ok(Outcome::Success)
    }
}

fn print<T: Message + Name>(
    output: Output,
    response: &T,
    show: impl FnOnce(&T) -> Result<(), Failure>,
) -> Result<(), Failure> {
    match output {
        Output::Text => show(response),
        Output::Json => print_message(response),
    }
}

/// Only for a person at a terminal.
fn hint(output: Output, text: &str) {
    if output == Output::Text && std::io::stderr().is_terminal() {
        let _ = writeln!(std::io::stderr(), "{text}");
    }
}

async fn get(admin: &mut Admin, slug: &str) -> Result<pb::Connection, Failure> {
    let request = pb::GetConnectionRequest { slug: slug.to_owned() };
    Ok(admin.get_connection(request).await?.into_inner().connection.unwrap_or_default())
}

async fn list_all(admin: &mut Admin) -> Result<Vec<pb::Connection>, Failure> {
    let mut connections = Vec::new();
    let mut page_token = String::new();
    loop {
        let request = pb::ListConnectionsRequest { page_size: 1000, page_token };
        let page = admin.list_connections(request).await?.into_inner();
        connections.extend(page.connections);
        if page.next_page_token.is_empty() {
            return Ok(connections);
        }
        page_token = page.next_page_token;
    }
}

async fn list_changes(
    admin: &mut Admin,
    slug: String,
) -> Result<Vec<pb::ConnectionChange>, Failure> {
    let mut changes = Vec::new();
    let mut page_token = String::new();
    loop {
        let slug = slug.clone();
        let request = pb::ListConnectionChangesRequest { slug, page_size: 1000, page_token };
        let page = admin.list_connection_changes(request).await?.into_inner();
        changes.extend(page.changes);
        if page.next_page_token.is_empty() {
            return Ok(changes);
        }
        page_token = page.next_page_token;
    }
}

/// A connection without settings is left out, and said to be.
fn export(connections: Vec<pb::Connection>) -> Result<Outcome, Failure> {
    let (readable, unreadable): (Vec<_>, Vec<_>) =
        connections.into_iter().partition(|connection| !connection.client_id.is_empty());
    print_line(document::write(readable)?.trim_end())?;
    for connection in &unreadable {
        let pb::Connection { slug, unreadable, .. } = connection;
        let _ = writeln!(std::io::stderr(), "left out {slug}: {unreadable}");
    }
    Ok(if unreadable.is_empty() { Outcome::Success } else { Outcome::Failed })
}

async fn check(
    admin: &mut Admin,
    slug: String,
    fields: Fields,
    secrets: SecretArgs,
    output: Output,
) -> Result<Outcome, Failure> {
    let mapping = if fields.map_claims() { get(admin, &slug).await?.claim_mapping } else { None };
    let mut edit = fields.edit(mapping)?;
    edit.set_secrets(&secrets.read(false)?);
    let (proposal, paths) = edit.to_message();
    let (proposal, update_mask) =
        if paths.is_empty() { (None, None) } else { (Some(proposal), mask(paths)) };
    let request = pb::CheckConnectionRequest { slug, proposal, update_mask };
    let mut found = admin.check_connection(request).await?.into_inner();
    let mut results = Vec::new();
    let mut summary = None;
    while let Some(message) = found.message().await? {
        match message.found {
            Some(Found::Result(result)) => {
                // A check can take a while, so a person sees each result as it arrives.
                if output == Output::Text {
                    show::check_result(&result)?;
                }
                results.push(result);
            }
            Some(Found::Summary(found)) => summary = Some(found),
            None => {}
        }
    }
    let summary =
        summary.ok_or_else(|| Failure::NoAnswer("the check ended without a summary".to_owned()))?;
    match output {
        Output::Text => show::check_summary(&results, &summary)?,
        Output::Json => {
            let results: Vec<_> = results.iter().map(|result| Mapped(reflect(result))).collect();
            let summary = Mapped(reflect(&summary));
            print_json(&serde_json::json!({ "results": results, "summary": summary }))?;
        }
    }
    Ok(if summary.outcome() == pb::CheckOutcome::Fail { Outcome::Failed } else { Outcome::Success })
}

/// The values of IdentityProvider in the contract.
const IDPS: [&str; 9] =
    ["entra", "okta", "google", "auth0", "keycloak", "ping", "onelogin", "adfs", "generic"];
const CREATE_EXAMPLE: &str = "\
Example:
  peerpanda-sso connection create acme --client-id 0oa1 --client-secret-file secret.txt \\
    --discovery-url https://acme.okta.com/.well-known/openid-configuration";
const FILE_EXAMPLE: &str = "\
Example of a file:
  connections:
    - slug: acme
      display_name: Acme Inc.
      discovery_url: https://acme.okta.com/.well-known/openid-configuration
      client_id: 0oa1
      client_secret_file: secrets/acme   # relative to the file

Fields and values are those of the proto's Connection. An enum value may be shortened to its own part:
client_secret_post for TOKEN_ENDPOINT_AUTH_METHOD_CLIENT_SECRET_POST.";
