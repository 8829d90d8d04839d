//! A complete login in one command: the service with its embedded stores, a small development IdP,
//! and a thin web tier, all in this process and over real sockets.
//!
//! ```text
//! cargo run --example quickstart                 # then open the page that it prints
//! cargo run --example quickstart -- --no-browser # don't open a browser
//! ```

mod idp;
mod web;

use std::net::SocketAddr;
use std::process::Stdio;

use clap::Parser;
use peerpanda_sso::app::{App, Environment};
use peerpanda_sso::config::{Config, Database};
use peerpanda_sso::model::address::AddressPolicy;
use peerpanda_sso::pb;
use peerpanda_sso::pb::connection_service_client::ConnectionServiceClient;
use peerpanda_sso::store::seal::{Keyring, MasterKey};
use peerpanda_sso::telemetry::{self, LogFormat};
use tokio::net::TcpListener;

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Run the service, a development IdP and a web tier in one process, and log in at
/// http://localhost:8080.
#[derive(Parser)]
struct Options {
    /// Run the web tier on this port. 0: let every part take a free port.
    #[arg(long, default_value_t = 8080, value_parser = clap::value_parser!(u16).range(..65535))]
    port: u16,
    /// Leave the connection in state TESTING: a login shows what the IdP sent, and signs nobody in.
    #[arg(long)]
    trial: bool,
    /// Don't open a browser.
    #[arg(long)]
    no_browser: bool,
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let options = Options::parse();
    telemetry::init(LogFormat::Text, tracing_subscriber::EnvFilter::new("warn"), None)?;
    let ports =
        if options.port == 0 { [0; 4] } else { [options.port, options.port + 1, 50051, 50052] };
    let bind = |port: u16| TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], port)));
    let (web_listener, idp_listener) = (bind(ports[0]).await?, bind(ports[1]).await?);
    let public_origin = format!("http://localhost:{}", web_listener.local_addr()?.port());
    let issuer = format!("http://localhost:{}", idp_listener.local_addr()?.port());

    // The service, as `peerpanda-sso serve` runs it with SQLite and memory.
    let data = tempfile::tempdir()?;
    let environment = Environment::default();
    let keyring = Keyring::new(vec![MasterKey::generate(environment.entropy.as_ref())])
        .ok_or("the keyring needs a key")?;
    let config = Config {
        listen: SocketAddr::from(([127, 0, 0, 1], ports[2])),
        admin_listen: SocketAddr::from(([127, 0, 0, 1], ports[3])),
        require_browser_binding: true,
        // The development IdP is at http://localhost, which a real service refuses to call.
        provider_addresses: AddressPolicy { allow_insecure: true, ..AddressPolicy::default() },
        ..Config::local(
            public_origin.clone(),
            Database::Sqlite(data.path().join("quickstart.db")),
            keyring,
        )
    };
    let app = App::start(config, environment).await?;

    // Support enters the values that the customer sends.
    let admin = format!("http://{}", app.admin_addr());
    let mut connections = ConnectionServiceClient::connect(admin.clone()).await?;
    let client = idp::Client::generate();
    let created = connections
        .create_connection(pb::CreateConnectionRequest {
            validate_only: false,
            connection: Some(pb::Connection {
                slug: "demo".to_owned(),
                display_name: "Quickstart".to_owned(),
                discovery_url: format!("{issuer}/.well-known/openid-configuration"),
                client_id: client.id.clone(),
                client_secret: client.secret.clone(),
                ..pb::Connection::default()
            }),
        })
        .await?
        .into_inner()
        .connection
        .ok_or("the response has no connection")?;

    // Support would first check the connection and have the customer test it.
    if !options.trial {
        let (slug, revision) = (created.slug.clone(), created.revision);
        connections
            .activate_connection(pb::ActivateConnectionRequest {
                slug,
                revision,
                force: true,
                validate_only: false,
            })
            .await?;
    }

    // The customer's administrator registers the redirect URIs at the IdP.
    let idp = idp::router(idp::Idp::new(
        issuer,
        client,
        created.redirect_uri,
        created.post_logout_redirect_uri,
    ));
    tokio::spawn(async move { axum::serve(idp_listener, idp).await });

    let web = web::router(
        web::WebTier::connect(&format!("http://{}", app.login_addr()), &public_origin).await?,
    );
    let login_page = format!("{public_origin}/app/accounts/oidc/demo/login/");
    print_guide(&login_page, &app);
    if !options.no_browser {
        open_browser(&login_page);
    }
    axum::serve(web_listener, web).with_graceful_shutdown(interrupted()).await?;
    app.shut_down().await;
    Ok(())
}

#[expect(clippy::print_stdout, reason = "people read this in the terminal")]
fn print_guide(login_page: &str, app: &App) {
    println!(
        "Everything is running. Open this page to log in under any name, see the identity that"
    );
    println!("the service returns, and log out again:\n\n    {login_page}\n");
    println!("You can make the same calls by hand:\n");
    let (login, admin) = (app.login_addr(), app.admin_addr());
    println!(
        "    grpcurl -plaintext -d '{{\"slug\":\"demo\",\"browser_binding\":\"any-16-characters\"}}' {login} peerpanda.sso.v1.LoginService/BeginLogin"
    );
    println!(
        "    grpcurl -plaintext -d '{{\"slug\":\"demo\"}}' {admin} peerpanda.sso.v1.ConnectionService/GetConnection\n"
    );
    println!("This is what support would use:\n");
    println!("    cargo run -- connection check demo --endpoint http://{admin}");
    println!("    cargo run -- connection attempts demo --endpoint http://{admin}\n");
    println!("Press Ctrl-C to stop.");
}

/// Does nothing on a machine without a desktop: the page's address is printed, too.
fn open_browser(page: &str) {
    for opener in ["xdg-open", "open"] {
        let opened = std::process::Command::new(opener)
            .arg(page)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        if opened.is_ok() {
            return;
        }
    }
}

async fn interrupted() {
    use tokio::signal::unix::{SignalKind, signal};
    let terminated = async {
        match signal(SignalKind::terminate()) {
            Ok(mut terminate) => {
                terminate.recv().await;
            }
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        () = terminated => {}
    }
}
