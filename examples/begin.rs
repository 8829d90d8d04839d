//! Calls BeginLogin and CompleteLogin from Rust. Run it against the quickstart:
//!
//! ```text
//! cargo run --example begin -- http://127.0.0.1:50051 demo
//! ```

use peerpanda_sso::pb;
use peerpanda_sso::pb::login_service_client::LoginServiceClient;
use tonic_types::StatusExt;

#[tokio::main]
#[expect(clippy::print_stdout, reason = "the example prints what a web tier would do")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(target), Some(slug)) = (arguments.next(), arguments.next()) else {
        return Err("usage: begin http://HOST:PORT SLUG".into());
    };
    let mut sso = LoginServiceClient::connect(target).await?;

    // At /app/accounts/oidc/{slug}/login/: store the binding in a cookie of this browser, and
    // redirect the browser to redirect_url.
    let binding = "from-this-browsers-cookie".to_owned();
    let begun = sso
        .begin_login(pb::BeginLoginRequest {
            slug: slug.clone(),
            return_to: Some("/reports".to_owned()),
            browser_binding: Some(binding.clone()),
            ..Default::default()
        })
        .await?
        .into_inner();
    println!("send the browser to {}", begun.redirect_url.split('?').next().unwrap_or_default());

    // At .../login/callback/: pass on the query's parameters and the binding of the cookie. The
    // code is made up here, so the service refuses it and says why.
    let request = pb::CompleteLoginRequest {
        slug,
        code: "made-up".to_owned(),
        state: begun.state,
        browser_binding: Some(binding),
        ..Default::default()
    };
    match sso.complete_login(request).await {
        Ok(done) => {
            println!("welcome {:?}", done.into_inner().identity.map(|identity| identity.email))
        }
        Err(status) => {
            let info = status.get_details_error_info().ok_or("the status has no ErrorInfo")?;
            println!("refused: {} {:?}", info.reason, info.metadata);
        }
    }
    Ok(())
}
