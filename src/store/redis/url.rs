//! Where Redis is, in one URL: a server, Sentinels that know it, or a Cluster.
//!
//! ```text
//! redis://USER:PASSWORD@HOST:PORT/DB
//! redis+sentinel://USER:PASSWORD@HOST:PORT,HOST:PORT/SERVICE/DB?sentinel_username=…&sentinel_password=…
//! redis+cluster://USER:PASSWORD@HOST:PORT,HOST:PORT
//! ```
//!
//! `rediss` in place of `redis`: over TLS, to the Sentinels too.

use secrecy::SecretString;
use url::{Host, Url};

/// A parsed URL.
#[derive(Clone, Debug)]
pub struct RedisUrl {
    /// Whether TLS is spoken.
    pub tls: bool,
    /// Host and port of each; at least one.
    pub nodes: Vec<(String, u16)>,
    /// What they are.
    pub kind: RedisKind,
    /// Of the server.
    pub username: Option<String>,
    /// Of the server.
    pub password: Option<SecretString>,
    /// The database's number.
    pub db: i64,
}

/// What a URL's nodes are.
#[derive(Clone, Debug)]
pub enum RedisKind {
    /// The server.
    Single,
    /// Sentinels.
    Sentinel {
        /// The name under which they know the master.
        service: String,
        /// Of the Sentinels.
        username: Option<String>,
        /// Of the Sentinels.
        password: Option<SecretString>,
    },
    /// Some nodes of a Cluster; they know the others.
    Cluster,
}

impl RedisUrl {
    /// Reads the URL. The error doesn't repeat it, since it can hold a password.
    ///
    /// # Errors
    /// What is expected.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let (scheme, rest) = text.split_once("://").ok_or(FORMS)?;
        let (tls, kind) = match scheme.split_once('+') {
            None => (scheme, "single"),
            Some((tls, kind)) => (tls, kind),
        };
        let tls = match tls {
            "redis" => false,
            "rediss" => true,
            _ => return Err(FORMS),
        };
        let (authority, tail) =
            rest.find(['/', '?', '#']).map_or((rest, ""), |end| rest.split_at(end));
        let (user, hosts) =
            authority.rsplit_once('@').map_or(("", authority), |(user, hosts)| (user, hosts));
        // The hosts apart, it is a URL like any other.
        let url = Url::parse(&format!("redis://{user}@host{tail}")).map_err(|_| FORMS)?;
        if url.fragment().is_some() {
            return Err(FORMS);
        }
        let default_port = if kind == "sentinel" { SENTINEL_PORT } else { REDIS_PORT };
        let nodes: Option<Vec<_>> =
            hosts.split(',').map(|node| host_and_port(node, default_port)).collect();
        let nodes = nodes.ok_or("names a host that is none, or a port that is none")?;
        let secret = |text: &str| decoded(text).filter(|text| !text.is_empty());
        let query = |name: &str| {
            url.query_pairs().find(|(own, _)| own == name).map(|(_, value)| value.into_owned())
        };
        let mut path: Vec<&str> =
            url.path().split('/').skip(1).filter(|part| !part.is_empty()).collect();
        let kind = match kind {
            "single" if nodes.len() == 1 => RedisKind::Single,
            "single" => {
                return Err(
                    "names several hosts: redis+sentinel:// or redis+cluster:// take several",
                );
            }
            "cluster" => RedisKind::Cluster,
            "sentinel" => {
                if path.is_empty() {
                    return Err("names no service: redis+sentinel://HOST:PORT,…/SERVICE");
                }
                RedisKind::Sentinel {
                    service: path.remove(0).to_owned(),
                    username: query("sentinel_username"),
                    password: query("sentinel_password").map(Into::into),
                }
            }
            _ => return Err(FORMS),
        };
        let db = match path.as_slice() {
            [] => 0,
            [db] => db.parse::<u16>().map_err(|_| "names a database that is no number")?,
            _ => return Err(FORMS),
        };
        if db != 0 && matches!(kind, RedisKind::Cluster) {
            return Err("names a database, of which a Cluster has one alone");
        }
        let is_known = |(name, _): (std::borrow::Cow<'_, str>, _)| {
            matches!(kind, RedisKind::Sentinel { .. })
                && matches!(&*name, "sentinel_username" | "sentinel_password")
        };
        if !url.query_pairs().all(is_known) {
            return Err("has a parameter that is not known");
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

fn host_and_port(node: &str, default_port: u16) -> Option<(String, u16)> {
    let url = Url::parse(&format!("redis://{node}")).ok()?;
    let is_bare = url.path().is_empty()
        && url.query().is_none()
        && url.username().is_empty()
        && url.password().is_none();
    let host = match url.host()? {
        Host::Ipv6(ip) => ip.to_string(),
        other => other.to_string(),
    };
    (is_bare && !host.is_empty()).then(|| (host, url.port().unwrap_or(default_port)))
}

/// Percent-decoded.
fn decoded(text: &str) -> Option<String> {
    // A form's decoding does that, once a plus sign is kept from becoming a space.
    let pair = format!("x={}", text.replace('+', "%2B"));
    url::form_urlencoded::parse(pair.as_bytes()).next().map(|(_, value)| value.into_owned())
}

const FORMS: &str = "must be redis://USER:PASSWORD@HOST:PORT/DB, redis+sentinel://USER:PASSWORD@HOST:PORT,…/SERVICE/DB or \
                     redis+cluster://USER:PASSWORD@HOST:PORT,… (rediss: over TLS)";
const REDIS_PORT: u16 = 6379;
const SENTINEL_PORT: u16 = 26379;

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::*;

    #[test]
    fn urls_of_every_kind_are_read() {
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
    fn what_is_no_such_url_is_refused_without_repeating_it() {
        for bad in [
            "",
            "redis://",
            "http://a",
            "redis://a,b",
            "redis+sentinel://a",
            "redis+cluster://a/1",
            "redis://a/x",
            "redis://a/1/2",
            "redis://a?s3cret=1",
            "redis://:s3cret@a:99999",
            "redis+other://a",
            "redis://a#s3cret",
        ] {
            let error = RedisUrl::parse(bad).expect_err(bad);
            assert!(!error.contains("s3cret"), "{error}");
        }
    }
}
