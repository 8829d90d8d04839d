//! The one integration binary. Tests act as the service's users do, over real sockets, against a fake IdP
//! that can misbehave, a certified OpenID Provider, and real Redis and PostgreSQL servers. `tests/run`
//! starts those servers and passes their addresses in the environment.

mod alerts;
mod attacks;
mod attempts;
mod begin_login;
mod binary;
mod bound_secrets;
mod bounds;
mod call_budgets;
mod callers;
mod causes;
mod checks;
mod complete_login;
mod conformance;
mod connections;
mod dns;
mod fake_idp;
mod faults;
mod harness;
mod history;
mod hostile;
mod identities;
mod idps;
mod kept_metadata;
mod limits;
mod logout_url;
mod operations;
mod postgres;
mod provider_cache;
mod proxy;
mod quickstart;
mod real_provider;
mod redis_topologies;
mod reference;
mod repeated;
mod replicas;
mod restore;
mod rig;
mod secrecy;
mod servers;
mod store_suite;
mod support;
mod tls;
mod traces;
mod unreadable;
