//! `peerpanda-sso connection`: what support does with the customers' connections. A verb parses its
//! arguments, makes its calls, and prints the response: as text for people, or as the message itself
//! for scripts.

mod apply;
mod attempts;
mod changes;
mod check;
mod document;
mod edit;
mod fields;
mod groups;
mod secrets;
mod show;
mod suggest;

use std::convert::Infallible;
use std::io::IsTerminal;
use std::path::PathBuf;

use clap::{Args, Subcommand};
use prost::{Message, Name};

use super::client::{Admin, ClientArgs};
use super::layout::print_text;
use super::reflection::{descriptor, enum_names, print_message};
use super::{Failure, Outcome, Output, print_line, print_note};
use crate::pb;
use attempts::AttemptsArgs;
use check::CheckArgs;
use edit::mask;
use fields::Fields;
use secrets::SecretArgs;
use show::SortBy;
pub(super) use suggest::matching_slugs;

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
    /// Set the output format. JSON and YAML follow the proto's JSON mapping, with the proto's field
    /// names.
    #[arg(
        short,
        long,
        global = true,
        value_enum,
        default_value_t,
        value_name = "FORMAT",
        help_heading = "Output"
    )]
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
        #[arg(value_parser = parse_slug)]
        slug: String,
        #[command(flatten)]
        fields: Fields,
        #[command(flatten)]
        secrets: SecretArgs,
    },
    /// Show a connection.
    Get {
        /// The account's slug.
        #[arg(value_parser = parse_slug)]
        slug: String,
    },
    /// List all connections.
    List {
        /// List only connections at which logins failed in the last 24 hours or don't come back, or
        /// whose last check failed.
        #[arg(long)]
        failing: bool,
        /// List only connections with a secret that has expired or expires within 30 days.
        #[arg(long)]
        expiring: bool,
        /// Sort by this column.
        #[arg(long, value_enum, default_value_t, value_name = "COLUMN", help_heading = "Output")]
        sort: SortBy,
    },
    /// Change the fields of a connection that the flags name. An empty value clears a field.
    Update {
        /// The account's slug.
        #[arg(value_parser = parse_slug)]
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
        #[arg(value_parser = parse_slug)]
        slug: String,
        /// Skip the confirmation.
        #[arg(long)]
        yes: bool,
    },
    /// Check connections at the customers' IdPs.
    ///
    /// Says what is wrong, who must act, and how; then how much is right. Exits with 1 if a check
    /// fails. With flags, checks the connection as these flags would change it, without changing it.
    Check(Box<CheckArgs>),
    /// Make a connection ACTIVE once its settings have passed a check and a test login.
    Activate {
        /// The account's slug.
        #[arg(value_parser = parse_slug)]
        slug: String,
        /// Activate without a check and a test login. The record of changes says so.
        #[arg(long)]
        force: bool,
    },
    /// Print the customer's integration guide with the account's own values, in Markdown.
    Guide {
        /// The account's slug; it needn't have a connection yet.
        #[arg(value_parser = parse_slug)]
        slug: String,
        /// Print the steps for this IdP. Default: the IdP of the connection.
        #[arg(long, value_name = "IDP", value_parser = idp_names())]
        idp: Option<String>,
        /// Print the note that the connection is ready to test, with what the check has proven.
        #[arg(long, conflicts_with = "idp")]
        ready: bool,
    },
    /// Show recent login attempts, and what to do about those that failed.
    #[command(after_help = ATTEMPTS_EXAMPLES)]
    Attempts(AttemptsArgs),
    /// Show the record of changes: what was changed, when and by whom.
    Changes {
        /// The account's slug.
        #[arg(value_parser = parse_slug)]
        slug: String,
    },
    /// Make an earlier revision of a connection the present one, with its secrets.
    ///
    /// `changes` lists the revisions that can be restored. The state stays as it is.
    Restore {
        /// The account's slug.
        #[arg(value_parser = parse_slug)]
        slug: String,
        /// The revision.
        revision: u64,
        /// Change an ACTIVE connection even if the change has not passed a check. The record of
        /// changes says so.
        #[arg(long)]
        force: bool,
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
        #[arg(value_parser = parse_slug)]
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
        let slug = verb.slug().map(str::to_owned);
        match (verb.run(&client, output).await, slug) {
            (Err(Failure::Refused(refusal)), Some(slug)) => {
                Err(suggest::help(&client, *refusal, &slug).await)
            }
            (Err(failure), _) => Err(client.explain(failure).await),
            (done, _) => done,
        }
    }
}

impl Verb {
    /// The one account that it is about.
    fn slug(&self) -> Option<&str> {
        match self {
            Self::Create { slug, .. }
            | Self::Get { slug }
            | Self::Update { slug, .. }
            | Self::Delete { slug, .. }
            | Self::Activate { slug, .. }
            | Self::Guide { slug, .. }
            | Self::Changes { slug }
            | Self::Restore { slug, .. } => Some(slug),
            Self::Check(arguments) => arguments.slug(),
            Self::Attempts(arguments) => arguments.slug(),
            Self::Export { slugs } => match slugs.as_slice() {
                [slug] => Some(slug),
                _ => None,
            },
            Self::List { .. } | Self::Apply { .. } => None,
        }
    }

    async fn run(self, client: &ClientArgs, output: Output) -> Result<Outcome, Failure> {
        match self {
            Self::Create { slug, fields, secrets } => {
                let mut edit = fields.edit(None)?;
                edit.set_secrets(&secrets.read(true)?);
                let entered = edit.to_message().0;
                let connection = Some(pb::Connection { slug: slug.clone(), ..entered.clone() });
                let request = pb::CreateConnectionRequest { connection, validate_only: false };
                let created = client.admin().await?.create_connection(request).await?.into_inner();
                print(output, &created, |it| {
                    show::connection(&it.connection)?;
                    suggest::note_discovery(&entered, it.connection.as_ref())
                })?;
                hint(output, &format!("next: peerpanda-sso connection check {slug}"));
            }
            Self::Get { slug } => {
                let request = pb::GetConnectionRequest { slug };
                let read = client.admin().await?.get_connection(request).await?.into_inner();
                print(output, &read, |it| show::connection(&it.connection))?;
            }
            Self::List { failing, expiring, sort } => {
                let mut connections = list_all(&mut client.admin().await?).await?;
                connections.retain(|it| {
                    (!expiring || show::is_expiring(it)) && (!failing || show::is_failing(it))
                });
                show::sort(&mut connections, sort);
                let page = pb::ListConnectionsResponse { connections, ..Default::default() };
                print(output, &page, |it| show::list(&it.connections, output))?;
            }
            Self::Update { slug, fields, secrets, force } => {
                let secrets = secrets.read(false)?;
                if fields.is_empty() && secrets.is_empty() {
                    let text = "nothing to change: name the fields to change by their flags";
                    return Err(Failure::Usage(text.to_owned()));
                }
                let admin = &mut client.admin().await?;
                let known = get(admin, &slug).await?;
                let mut edit = fields.edit(known.claim_mapping.clone())?;
                edit.set_secrets(&secrets);
                let (entered, paths) = edit.to_message();
                let revision = known.revision;
                let connection = pb::Connection { slug, revision, ..entered.clone() };
                let request = pb::UpdateConnectionRequest {
                    connection: Some(connection),
                    update_mask: mask(paths),
                    force,
                    validate_only: false,
                };
                let updated = admin.update_connection(request).await?.into_inner();
                print(output, &updated, |it| {
                    let after = it.connection.clone().unwrap_or_default();
                    changes::print_changed(&known, &after, &it.changed_fields)?;
                    suggest::note_discovery(&entered, Some(&after))?;
                    print_text(0, &note(&it.effect))
                })?;
            }
            Self::Delete { slug, yes } => {
                let admin = &mut client.admin().await?;
                let revision = get(admin, &slug).await?.revision;
                if !yes {
                    secrets::confirm_deletion(&slug)?;
                }
                let request = pb::DeleteConnectionRequest { slug, revision };
                let deleted = admin.delete_connection(request).await?.into_inner();
                print(output, &deleted, |_| Ok(()))?;
            }
            Self::Check(arguments) => {
                return check::run(&mut client.admin().await?, *arguments, output).await;
            }
            Self::Activate { slug, force } => {
                let admin = &mut client.admin().await?;
                let known = get(admin, &slug).await?;
                let revision = known.revision;
                let request =
                    pb::ActivateConnectionRequest { slug, revision, force, validate_only: false };
                let activated = admin.activate_connection(request).await?.into_inner();
                print(output, &activated, |it| {
                    let after = it.connection.clone().unwrap_or_default();
                    changes::print_changed(&known, &after, &["state".to_owned()])
                })?;
            }
            Self::Guide { slug, idp, ready } => {
                let idp = format!("IDENTITY_PROVIDER_{}", idp.unwrap_or_default().to_uppercase());
                let idp = pb::IdentityProvider::from_str_name(&idp).unwrap_or_default();
                let request = pb::GetSetupGuideRequest { slug, idp: idp.into(), ready };
                let guide = client.admin().await?.get_setup_guide(request).await?.into_inner();
                print(output, &guide, |it| print_line(it.markdown.trim_end()))?;
            }
            Self::Attempts(arguments) => {
                return attempts::run(&mut client.admin().await?, arguments, output).await;
            }
            Self::Changes { slug } => {
                changes::list(&mut client.admin().await?, slug, output).await?;
            }
            Self::Restore { slug, revision, force } => {
                let admin = &mut client.admin().await?;
                changes::restore(admin, slug, revision, force, output).await?;
            }
            Self::Apply { file, dry_run, force } => {
                let entries = document::read(&file)?;
                let options = apply::Options { dry_run, force, output };
                return apply::run(client.admin().await?, entries, options).await;
            }
            Self::Export { slugs } => {
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

/// A slug is lower-case, also where the account's name isn't.
fn parse_slug(text: &str) -> Result<String, Infallible> {
    Ok(text.trim().to_lowercase())
}

/// The products of the guide.
fn idp_names() -> Vec<String> {
    let field = descriptor::<pb::GetSetupGuideRequest>().get_field_by_name("idp");
    let names =
        field.and_then(|field| Some(enum_names(field.kind().as_enum()?).collect::<Vec<_>>()));
    names.into_iter().flatten().map(|(_, short, _)| short).collect()
}

/// Which logins a change affects, as a sentence of its own.
fn note(effect: &str) -> String {
    if effect.is_empty() { String::new() } else { format!("note: {effect}") }
}

fn print<T: Message + Name>(
    output: Output,
    response: &T,
    show: impl FnOnce(&T) -> Result<(), Failure>,
) -> Result<(), Failure> {
    if output.is_data() { print_message(output, response) } else { show(response) }
}

/// Only for a person at a terminal.
fn hint(output: Output, text: &str) {
    if !output.is_data() && std::io::stderr().is_terminal() {
        print_note(text);
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

/// A connection without settings is left out, and said to be.
fn export(connections: Vec<pb::Connection>) -> Result<Outcome, Failure> {
    let (readable, unreadable): (Vec<_>, Vec<_>) =
        connections.into_iter().partition(|connection| !connection.client_id.is_empty());
    print_line(document::write(readable)?.trim_end())?;
    for connection in &unreadable {
        let pb::Connection { slug, unreadable, .. } = connection;
        print_note(&format!("left out {slug}: {unreadable}"));
    }
    Ok(if unreadable.is_empty() { Outcome::Success } else { Outcome::Failed })
}

const CREATE_EXAMPLE: &str = "\
Example:
  peerpanda-sso connection create acme --client-id 0oa1 --client-secret-file secret.txt \\
    --discovery-url https://acme.okta.com/.well-known/openid-configuration";
const ATTEMPTS_EXAMPLES: &str = "\
Examples:
  peerpanda-sso connection attempts acme
  peerpanda-sso connection attempts --trace 72a1b8da5fb33abd3fe7f72a3bec862a
  peerpanda-sso connection attempts --all --since 1h --reason IDP_REFUSED";
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
