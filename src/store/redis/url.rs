//! The URL of Redis: a server, Sentinels that know it, or a Cluster.
//!
//! ```text
//! redis://USER:PASSWORD@HOST:PORT/DB
//! redis+sentinel://USER:PASSWORD@HOST:PORT,HOST:PORT/SERVICE/DB?sentinel_username=…&sentinel_password=…
//! redis+cluster://USER:PASSWORD@HOST:PORT,HOST:PORT
//! ```
//!
//! `rediss` in place of `redis` means TLS, also to Sentinels. An error must never repeat user information.

use secrecy::SecretString;
use url::{Host, ParseError, Url};

/// A parsed URL.
#[derive(Clone, Debug)]
pub struct RedisUrl {
    /// Whether to use TLS.
    pub tls: bool,
    /// Host and port of each node; at least one.
    pub nodes: Vec<(String, u16)>,
    /// What the nodes are.
    pub kind: RedisKind,
    /// The user name at the server.
    pub username: Option<String>,
    /// The password at the server.
    pub password: Option<SecretString>,
    /// The number of the database.
    pub db: i64,
}

/// What the nodes of a URL are.
#[derive(Clone, Debug)]
pub enum RedisKind {
    /// The server.
    Single,
    /// Sentinels.
    Sentinel {
        /// The name under which they know the master.
        service: String,
        /// The user name at the Sentinels.
        username: Option<String>,
        /// The password at the Sentinels.
        password: Option<SecretString>,
    },
    /// Some nodes of a Cluster, which know the others.
    Cluster,
}

/// Why a text is not a Redis URL.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RedisUrlError {
    /// It has none of the three forms.
    #[error(
        "invalid Redis URL: expected redis://USER:PASSWORD@HOST:PORT/DB, \
         redis+sentinel://USER:PASSWORD@HOST:PORT,…/SERVICE/DB or \
         redis+cluster://USER:PASSWORD@HOST:PORT,… (rediss instead of redis for TLS)"
    )]
    Form,
    /// A host is missing or malformed.
    #[error("invalid Redis URL: a host is missing or malformed")]
    Host,
    /// A port is not a number. `None`: it isn't shown, since it may be part of a password.
    #[error("invalid Redis URL: port {} is not a number from 0 to 65535", quoted(.0.as_deref()))]
    Port(Option<String>),
    /// Only Sentinels and a Cluster can have several hosts.
    #[error("invalid Redis URL: several hosts need redis+sentinel:// or redis+cluster://")]
    SeveralHosts,
    /// The path doesn't begin with the name of the service.
    #[error(
        "invalid Redis URL: the name of the service is missing: \
         redis+sentinel://HOST:PORT,…/SERVICE"
    )]
    ServiceMissing,
    /// The database is not a number. `None`: as for the port.
    #[error("invalid Redis URL: database {} is not a number", quoted(.0.as_deref()))]
    Database(Option<String>),
    /// A Cluster has no other database than 0.
    #[error("invalid Redis URL: a Cluster has only database 0")]
    ClusterDatabase,
    /// The query has an unknown parameter.
    #[error(
        "invalid Redis URL: unknown query parameter; \
         only redis+sentinel:// has any: sentinel_username and sentinel_password"
    )]
    UnknownParameter,
}

impl RedisUrl {
    /// Parses the URL.
    ///
    /// # Errors
    /// See [`RedisUrlError`].
    pub fn parse(text: &str) -> Result<Self, RedisUrlError> {
        use RedisUrlError as E;
        let (scheme, rest) = text.split_once("://").ok_or(E::Form)?;
        let (tls, kind) = scheme.split_once('+').unwrap_or((scheme, "single"));
        let tls = match tls {
            "redis" => false,
            "rediss" => true,
            _ => return Err(E::Form),
        };
        let (authority, tail) =
            rest.find(['/', '?', '#']).map_or((rest, ""), |end| rest.split_at(end));
        let (user, hosts) = authority.rsplit_once('@').unwrap_or(("", authority));
        // Without an @, or with more than one, what seems to be a port or a database may belong to a
        // password with unescaped characters.
        let has_clear_user = authority.contains('@') && text.matches('@').count() == 1;
        let shown = |part: &str| has_clear_user.then(|| part.to_owned());
        // Without the list of hosts it is an ordinary URL.
        let url = Url::parse(&format!("redis://{user}@host{tail}")).map_err(|_| E::Form)?;
        if url.fragment().is_some() {
            return Err(E::Form);
        }
        let default_port = if kind == "sentinel" { SENTINEL_PORT } else { REDIS_PORT };
        let node = |node| {
            host_and_port(node, default_port).map_err(|error| match error {
                E::Port(Some(port)) => E::Port(shown(&port)),
                error => error,
            })
        };
        let nodes = hosts.split(',').map(node).collect::<Result<Vec<_>, _>>()?;
        let secret = |text: &str| percent_decoded(text).filter(|text| !text.is_empty());
        let query = |name: &str| {
            url.query_pairs().find(|(own, _)| own == name).map(|(_, value)| value.into_owned())
        };
        let mut path: Vec<&str> =
            url.path().split('/').skip(1).filter(|part| !part.is_empty()).collect();
        let kind = match kind {
            "single" if nodes.len() == 1 => RedisKind::Single,
            "single" => return Err(E::SeveralHosts),
            "cluster" => RedisKind::Cluster,
            "sentinel" if path.is_empty() => return Err(E::ServiceMissing),
            "sentinel" => RedisKind::Sentinel {
                service: path.remove(0).to_owned(),
                username: query("sentinel_username"),
                password: query("sentinel_password").map(Into::into),
            },
            _ => return Err(E::Form),
        };
        let db = match path.as_slice() {
            [] => 0,
            [db] => db.parse::<u16>().map_err(|_| E::Database(shown(db)))?,
            _ => return Err(E::Form),
        };
        if db != 0 && matches!(kind, RedisKind::Cluster) {
            return Err(E::ClusterDatabase);
        }
        let is_known = |(name, _): (std::borrow::Cow<'_, str>, _)| {
            matches!(kind, RedisKind::Sentinel { .. })
                && matches!(&*name, "sentinel_username" | "sentinel_password")
        };
        if !url.query_pairs().all(is_known) {
            return Err(E::UnknownParameter);
        }
        Ok(Self {
            tls,
            nodes,
            kind,
            username: secret(url.username()),
            password: url.password().and_then(secret).map(Into::into),
            db: db.into(),
        })
    }
}

fn host_and_port(node: &str, default_port: u16) -> Result<(String, u16), RedisUrlError> {
    let url = Url::parse(&format!("redis://{node}")).map_err(|error| match error {
        ParseError::InvalidPort => {
            RedisUrlError::Port(node.rsplit_once(':').map(|(_, port)| port.to_owned()))
        }
        _ => RedisUrlError::Host,
    })?;
    let has_more = !url.path().is_empty()
        || url.query().is_some()
        || !url.username().is_empty()
        || url.password().is_some();
    let host = match url.host().ok_or(RedisUrlError::Host)? {
        Host::Ipv6(ip) => ip.to_string(),
        other => other.to_string(),
    };
    if has_more || host.is_empty() {
        return Err(RedisUrlError::Host);
    }
    Ok((host, url.port().unwrap_or(default_port)))
}

fn percent_decoded(text: &str) -> Option<String> {
    // Form decoding does that, once plus signs are escaped, which it would decode to spaces.
    let pair = format!("x={}", text.replace('+', "%2B"));
    url::form_urlencoded::parse(pair.as_bytes()).next().map(|(_, value)| value.into_owned())
}

fn quoted(part: Option<&str>) -> String {
    part.map_or_else(|| "(not shown)".to_owned(), |part| format!("{part:?}"))
}

const REDIS_PORT: u16 = 6379;
const SENTINEL_PORT: u16 = 26379;

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::*;

    #[test]
    fn urls_of_every_kind_are_parsed() {
        let single = RedisUrl::parse("rediss://u:p%40s+s@redis.example/3").expect("a server");
        assert!(single.tls && matches!(single.kind, RedisKind::Single) && single.db == 3);
        assert_eq!(single.nodes, [("redis.example".to_owned(), 6379)]);
        assert_eq!(single.username.as_deref(), Some("u"));
        assert_eq!(single.password.as_ref().map(ExposeSecret::expose_secret), Some("p@s+s"));
        let sentinel =
            RedisUrl::parse("redis+sentinel://:p@a:1,b,[::1]:2/mymaster/1?sentinel_password=q")
                .expect("Sentinels");
        let hosts = [("a".to_owned(), 1), ("b".to_owned(), 26379), ("::1".to_owned(), 2)];
        assert_eq!(
            (sentinel.nodes.as_slice(), sentinel.db, sentinel.username),
            (hosts.as_slice(), 1, None)
        );
        let RedisKind::Sentinel { service, password, .. } = sentinel.kind else {
            panic!("Sentinels")
        };
        assert_eq!(
            (service.as_str(), password.as_ref().map(ExposeSecret::expose_secret)),
            ("mymaster", Some("q"))
        );
        let cluster = RedisUrl::parse("redis+cluster://a:7000,b:7001").expect("a Cluster");
        assert!(matches!(cluster.kind, RedisKind::Cluster) && cluster.nodes.len() == 2);
    }

    #[test]
    fn an_error_names_the_problem_and_repeats_no_secret() {
        use RedisUrlError as E;
        let text = |text: &str| Some(text.to_owned());
        for (bad, expected) in [
            ("", E::Form),
            ("redis://", E::Host),
            ("http://a", E::Form),
            ("redis://a,b", E::SeveralHosts),
            ("redis+sentinel://a", E::ServiceMissing),
            ("redis+cluster://a/1", E::ClusterDatabase),
            ("redis://u:s3cret@a/x", E::Database(text("x"))),
            ("redis://a/1/2", E::Form),
            ("redis://a?s3cret=1", E::UnknownParameter),
            ("redis://:s3cret@a:99999", E::Port(text("99999"))),
            ("redis://:s3cret@a:x", E::Port(text("x"))),
            ("redis://a:x", E::Port(None)),
            ("redis://user:s3cret", E::Port(None)),
            ("redis://user:s3cret/x@a", E::Port(None)),
            ("redis://user:p@b/s3cret@a", E::Database(None)),
            ("redis+other://a", E::Form),
            ("redis://a#s3cret", E::Form),
        ] {
            let error = RedisUrl::parse(bad).expect_err(bad);
            assert!(!error.to_string().contains("s3cret"), "{error}");
            assert_eq!(error, expected, "{bad}");
        }
        assert_eq!(
            E::Port(text("x")).to_string(),
            "invalid Redis URL: port \"x\" is not a number from 0 to 65535"
        );
    }
}
