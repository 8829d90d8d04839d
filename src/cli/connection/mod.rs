//! `peerpanda-sso connection`: what support does with the accounts' connections.

mod apply;
mod document;
mod fields;
mod secrets;
mod show;

use std::io::IsTerminal;
use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use prost_types::FieldMask;

use super::client::{Admin, ClientArgs};
use super::{Failure, Outcome, Output, print_json, print_line};
use crate::pb;
use crate::pb::check_connection_response::Found;
use document::Account;
use fields::Fields;
use secrets::Secrets;

/// Sets customers up, checks them, and tells why a login failed.
///
/// A new connection is TESTING: logins work and say that they are tests. The way to ACTIVE: create, check, guide --ready (the
/// note for the customer), a test login by the customer, activate.
///
/// Exit codes: 0 done; 1 refused by the service, or a check has failed; 2 wrong use; 3 no answer.
#[derive(Args)]
pub struct ConnectionCommand {
    #[command(flatten)]
    reach: ClientArgs,
    /// How to print.
    #[arg(long, global = true, value_enum, default_value_t)]
    output: Output,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Adds an account's connection, as TESTING.
    ///
    /// The secret comes from --client-secret-file (- is standard input), or is asked for without an echo.
    #[command(
        after_help = "Example:\n  peerpanda-sso connection create acme --client-id 0oa1 --client-secret-file secret.txt \\\n    --discovery-url https://acme.okta.com/.well-known/openid-configuration"
    )]
    Create {
        /// The account.
        slug: String,
        #[command(flatten)]
        fields: Fields,
        #[command(flatten)]
        secrets: Secrets,
    },
    /// Shows an account's connection.
    Get {
        /// The account.
        slug: String,
    },
    /// Shows all connections.
    List {
        /// Only those of which a secret expires within 30 days, or has.
        #[arg(long)]
        expiring: bool,
    },
    /// Changes what the flags name, and nothing else. An empty value clears a field.
    Update {
        /// The account.
        slug: String,
        #[command(flatten)]
        fields: Fields,
        #[command(flatten)]
        secrets: Secrets,
        /// Change what logins hang on of an ACTIVE connection though it has not passed a check; that is recorded.
        #[arg(long)]
        force: bool,
    },
    /// Deletes an account's connection. Logins under way can't be finished any more.
    Delete {
        /// The account.
        slug: String,
        /// Don't ask.
        #[arg(long)]
        yes: bool,
    },
    /// Looks at the customer's IdP, and tells what is right, what is wrong, who must act and how. Exits with 1 if anything
    /// fails. With flags: as the connection would be with them, changing nothing.
    Check {
        /// The account.
        slug: String,
        #[command(flatten)]
        fields: Fields,
        #[command(flatten)]
        secrets: Secrets,
    },
    /// Makes a connection ACTIVE: when its settings have passed a check and a test login.
    Activate {
        /// The account.
        slug: String,
        /// Without them; that is recorded.
        #[arg(long)]
        force: bool,
    },
    /// Prints the customer's integration guide with the account's own values, in Markdown.
    Guide {
        /// The account; it needn't be set up yet.
        slug: String,
        /// Whose steps to tell. Default: the IdP's that the connection names.
        #[arg(long, value_enum)]
        idp: Option<Idp>,
        /// The note that the connection is ready to test, with what was proven.
        #[arg(long, conflicts_with = "idp")]
        ready: bool,
    },
    /// Shows what became of the account's latest logins, and what to do about those that failed.
    Attempts {
        /// The account.
        slug: String,
        /// How many: 1 to 200.
        #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(i32).range(1..=200))]
        last: i32,
    },
    /// Shows what was changed of the account's connection, when and by whom.
    Changes {
        /// The account.
        slug: String,
    },
    /// Creates or updates the connections of a YAML file, and leaves those alone that are as it says.
    ///
    /// Goes on past one that is refused, and reports at the end. Fields that an entry doesn't name stay as they are. `export` writes
    /// this format.
    #[command(
        after_help = "Example of a file:\n  connections:\n    - slug: acme\n      display_name: Acme Inc.\n      discovery_url: https://acme.okta.com/.well-known/openid-configuration\n      client_id: 0oa1\n      client_secret_file: secrets/acme   # beside the file"
    )]
    Apply {
        /// The file.
        #[arg(short, long, value_name = "FILE")]
        file: PathBuf,
        /// Show what would change, and change nothing.
        #[arg(long)]
        dry_run: bool,
        /// As for update.
        #[arg(long)]
        force: bool,
    },
    /// Writes connections as `apply` reads them, without secrets.
    Export {
        /// The accounts. Default: all.
        slugs: Vec<String>,
    },
}

/// An IdP whose own words are used.
#[derive(Clone, Copy, ValueEnum)]
enum Idp {
    Entra,
    Okta,
    Google,
    Auth0,
    Keycloak,
    Generic,
}

impl From<Idp> for pb::IdentityProvider {
    fn from(idp: Idp) -> Self {
        match idp {
            Idp::Entra => Self::Entra,
            Idp::Okta => Self::Okta,
            Idp::Google => Self::Google,
            Idp::Auth0 => Self::Auth0,
            Idp::Keycloak => Self::Keycloak,
            Idp::Generic => Self::Generic,
        }
    }
}

impl ConnectionCommand {
    /// Does it.
    ///
    /// # Errors
    /// See [`Failure`].
    pub async fn run(self) -> Result<Outcome, Failure> {
        let Self { reach, output, verb } = self;
        match verb {
            Verb::Create { slug, fields, secrets } => {
                let (mut connection, _) = fields.read(None)?;
                let secrets = secrets.read(true)?;
                connection.slug = slug;
                secrets.fill(&mut connection);
                let request = pb::CreateConnectionRequest {
                    connection: Some(connection),
                    validate_only: false,
                };
                let created =
                    reach.admin().await?.create_connection(request).await?.into_inner().connection;
                show::connection(&created.unwrap_or_default(), output)?;
                hint(output, "next: peerpanda-sso connection check SLUG")
            }
            Verb::Get { slug } => {
                let read = get(&mut reach.admin().await?, &slug).await?;
                show::connection(&read, output)
            }
            Verb::List { expiring } => {
                show::list(&all(&mut reach.admin().await?).await?, expiring, output)
            }
            Verb::Update { slug, fields, secrets, force } => {
                let secrets = secrets.read(false)?;
                let desk = &mut reach.admin().await?;
                let known = get(desk, &slug).await?;
                let (mut connection, mut paths) = fields.read(known.claim_mapping)?;
                paths.extend(secrets.fill(&mut connection));
                if paths.is_empty() {
                    return Err(Failure::Usage(
                        "nothing to change: name the fields by their flags".to_owned(),
                    ));
                }
                connection.revision = known.revision;
                connection.slug = slug;
                let update_mask = Some(FieldMask { paths });
                let request = pb::UpdateConnectionRequest {
                    connection: Some(connection),
                    update_mask,
                    force,
                    validate_only: false,
                };
                let updated = desk.update_connection(request).await?.into_inner();
                show::connection(&updated.connection.unwrap_or_default(), output)?;
                if updated.effect.is_empty() {
                    Ok(Outcome::Success)
                } else {
                    hint(output, &format!("note: {}", updated.effect))
                }
            }
            Verb::Delete { slug, yes } => {
                let desk = &mut reach.admin().await?;
                let revision = get(desk, &slug).await?.revision;
                if !yes {
                    secrets::confirm(&slug)?;
                }
                desk.delete_connection(pb::DeleteConnectionRequest { slug, revision }).await?;
                Ok(Outcome::Success)
            }
            Verb::Check { slug, fields, secrets } => {
                check(&mut reach.admin().await?, slug, &fields, secrets, output).await
            }
            Verb::Activate { slug, force } => {
                let desk = &mut reach.admin().await?;
                let revision = get(desk, &slug).await?.revision;
                let request = pb::ActivateConnectionRequest { slug, revision, force };
                let activated = desk.activate_connection(request).await?.into_inner().connection;
                show::connection(&activated.unwrap_or_default(), output)
            }
            Verb::Guide { slug, idp, ready } => {
                let idp = idp.map_or(pb::IdentityProvider::Unspecified, Into::into);
                let request = pb::GetSetupGuideRequest { slug, idp: idp.into(), ready };
                let markdown =
                    reach.admin().await?.get_setup_guide(request).await?.into_inner().markdown;
                match output {
                    Output::Text => print_line(markdown.trim_end())?,
                    Output::Json => print_json(&serde_json::json!({ "markdown": markdown }))?,
                }
                Ok(Outcome::Success)
            }
            Verb::Attempts { slug, last } => {
                let request = pb::ListLoginAttemptsRequest { slug, page_size: last };
                show::attempts(
                    &reach.admin().await?.list_login_attempts(request).await?.into_inner(),
                    output,
                )
            }
            Verb::Changes { slug } => {
                let request = pb::ListConnectionChangesRequest {
                    slug,
                    page_size: 1000,
                    page_token: String::new(),
                };
                show::changes(
                    &reach
                        .admin()
                        .await?
                        .list_connection_changes(request)
                        .await?
                        .into_inner()
                        .changes,
                    output,
                )
            }
            Verb::Apply { file, dry_run, force } => {
                let accounts = document::read(&file)?;
                apply::run(reach.admin().await?, accounts, apply::How { dry_run, force, output })
                    .await
            }
            Verb::Export { slugs } => {
                let desk = &mut reach.admin().await?;
                let mut connections = Vec::new();
                for slug in &slugs {
                    connections.push(get(desk, slug).await?);
                }
                if slugs.is_empty() {
                    connections = all(desk).await?;
                }
                let accounts: Vec<Account> = connections.iter().map(Account::from).collect();
                print_line(document::write(&accounts)?.trim_end())?;
                Ok(Outcome::Success)
            }
        }
    }
}

/// Beside what is printed: for people alone.
fn hint(output: Output, text: &str) -> Result<Outcome, Failure> {
    if output == Output::Text && std::io::stderr().is_terminal() {
        use std::io::Write;
        let _ = writeln!(std::io::stderr(), "{text}");
    }
    Ok(Outcome::Success)
}

async fn get(desk: &mut Admin, slug: &str) -> Result<pb::Connection, Failure> {
    let request = pb::GetConnectionRequest { slug: slug.to_owned() };
    Ok(desk.get_connection(request).await?.into_inner().connection.unwrap_or_default())
}

/// Every connection, page by page.
async fn all(desk: &mut Admin) -> Result<Vec<pb::Connection>, Failure> {
    let mut connections = Vec::new();
    let mut page_token = String::new();
    loop {
        let request = pb::ListConnectionsRequest { page_size: 1000, page_token };
        let page = desk.list_connections(request).await?.into_inner();
        connections.extend(page.connections);
        if page.next_page_token.is_empty() {
            return Ok(connections);
        }
        page_token = page.next_page_token;
    }
}

async fn check(
    desk: &mut Admin,
    slug: String,
    fields: &Fields,
    secrets: Secrets,
    output: Output,
) -> Result<Outcome, Failure> {
    let base = if fields.map_claims() { get(desk, &slug).await?.claim_mapping } else { None };
    let (mut proposal, mut paths) = fields.read(base)?;
    paths.extend(secrets.read(false)?.fill(&mut proposal));
    let (proposal, update_mask) =
        if paths.is_empty() { (None, None) } else { (Some(proposal), Some(FieldMask { paths })) };
    let request = pb::CheckConnectionRequest { slug, proposal, update_mask };
    let mut found = desk.check_connection(request).await?.into_inner();
    let mut results = Vec::new();
    let mut summary = None;
    while let Some(message) = found.message().await? {
        match message.found {
            Some(Found::Result(result)) => {
                // As they come.
                if output == Output::Text {
                    print_line(&show::check_result(&result))?;
                }
                results.push(result);
            }
            Some(Found::Summary(found)) => summary = Some(found),
            None => {}
        }
    }
    let Some(summary) = summary else {
        return Err(Failure::NoAnswer("the check was cut off".to_owned()));
    };
    show::check_summary(&results, &summary, output)?;
    Ok(if summary.outcome() == pb::CheckOutcome::Fail { Outcome::Failed } else { Outcome::Success })
}
