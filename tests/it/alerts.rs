//! The chart's alert rules, checked against the metrics that the program emits and the runbook.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use peerpanda_sso::clock::SystemClock;
use peerpanda_sso::model::cause::Cause;
use peerpanda_sso::model::reason::Reason;
use peerpanda_sso::pb;
use promql_parser::parser::{Expr, VectorSelector};
use promql_parser::util::{ExprVisitor, walk_expr};
use rcgen::{CertificateParams, KeyPair};
use serde::Deserialize;

use crate::binary::Program;
use crate::fake_idp::FakeIdp;
use crate::harness::{begin_request, reason};
use crate::operations::{get, metrics_port};

const RULES: &str = include_str!("../../helm/peerpanda-sso/files/alerts.yaml");
const RUNBOOK: &str = include_str!("../../docs/operations.md");

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Rules {
    groups: Vec<Group>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Group {
    #[expect(dead_code, reason = "a group must have a name")]
    name: String,
    rules: Vec<Rule>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Rule {
    alert: String,
    expr: String,
    #[serde(rename = "for")]
    #[expect(dead_code, reason = "listed because unknown fields are refused")]
    pending: Option<String>,
    labels: BTreeMap<String, String>,
    annotations: BTreeMap<String, String>,
}

fn rules() -> Vec<Rule> {
    let rules: Rules = serde_saphyr::from_str(RULES).expect("rules");
    rules.groups.into_iter().flat_map(|group| group.rules).collect()
}

/// The selectors of an expression: metrics with their labels and values.
#[derive(Default)]
struct Selected(Vec<(String, Vec<(String, String)>)>);

impl Selected {
    fn take(&mut self, selector: &VectorSelector) {
        let matchers = selector.matchers.matchers.iter();
        let labels =
            matchers.map(|matcher| (matcher.name.clone(), matcher.value.clone())).collect();
        self.0.push((selector.name.clone().expect("a metric's name"), labels));
    }
}

impl ExprVisitor for Selected {
    type Error = ();

    fn pre_visit(&mut self, expr: &Expr) -> Result<bool, ()> {
        match expr {
            Expr::VectorSelector(selector) => self.take(selector),
            Expr::MatrixSelector(matrix) => self.take(&matrix.vs),
            _ => {}
        }
        Ok(true)
    }
}

/// Collects the labels of each metric and their values.
fn emitted(metrics: &str, into: &mut BTreeMap<String, BTreeSet<(String, String)>>) {
    for line in metrics.lines().filter(|line| !line.starts_with('#')) {
        let series = line.rsplit_once(' ').map_or("", |(series, _)| series);
        let (name, labels) = series.split_once('{').unwrap_or((series, ""));
        let labels =
            labels.trim_end_matches('}').split("\",").filter_map(|pair| pair.split_once("=\""));
        let labels =
            labels.map(|(name, value)| (name.to_owned(), value.trim_end_matches('"').to_owned()));
        into.entry(name.to_owned()).or_default().extend(labels);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_alert_rule_speaks_of_metrics_that_are_emitted() {
    let data = tempfile::tempdir().expect("a directory");
    let idp = FakeIdp::start(Arc::new(SystemClock)).await;
    let mut known = BTreeMap::new();
    let settings = [("SSO_METRICS_LISTEN", "127.0.0.1:0")];
    let mut program = Program::serve(data.path(), &settings).await;
    let port = metrics_port(&program);
    // These must exist before their first event, which `rate` and `increase` would miss otherwise.
    emitted(&get(port, "/metrics").await.1, &mut known);
    for counter in [
        "sso_panics_total",
        "sso_background_task_failures_total",
        "sso_store_errors_total",
        "sso_provider_fetches_total",
        "sso_breakers_open",
        "sso_ready",
    ] {
        assert!(known.contains_key(counter), "{counter} begins at zero: {known:?}");
    }
    program.set_up(&idp).await;
    program.log_in(&idp).await.expect("a login");
    let unknown = pb::BeginLoginRequest { slug: "unknown".to_owned(), ..begin_request() };
    assert_eq!(reason(program.login.begin_login(unknown).await), "CONNECTION_NOT_FOUND");
    assert_eq!(
        reason(program.login.complete_login(pb::CompleteLoginRequest::default()).await),
        "BAD_REQUEST"
    );
    emitted(&get(port, "/metrics").await.1, &mut known);
    drop(program);

    let key = KeyPair::generate().expect("a key");
    let certificate = CertificateParams::new(vec!["localhost".to_owned()])
        .expect("parameters")
        .self_signed(&key)
        .expect("signed");
    let (cert_file, key_file) = (data.path().join("crt"), data.path().join("key"));
    std::fs::write(&cert_file, certificate.pem()).expect("written");
    std::fs::write(&key_file, key.serialize_pem()).expect("written");
    let settings = [
        ("SSO_METRICS_LISTEN", "127.0.0.1:0"),
        ("SSO_TLS_CERT_FILE", cert_file.to_str().expect("UTF-8")),
        ("SSO_TLS_KEY_FILE", key_file.to_str().expect("UTF-8")),
    ];
    let program = Program::start(data.path(), &settings).await;
    let port = metrics_port(&program);
    assert_eq!(get(port, "/livez").await.0, 200);
    emitted(&get(port, "/metrics").await.1, &mut known);

    let rules = rules();
    assert!(rules.len() > 10);
    for rule in &rules {
        let expr = promql_parser::parser::parse(&rule.expr)
            .unwrap_or_else(|error| panic!("{}: {error}", rule.alert));
        let mut selected = Selected::default();
        walk_expr(&mut selected, &expr).expect("walked");
        assert!(!selected.0.is_empty(), "{} selects nothing", rule.alert);
        for (metric, labels) in selected.0 {
            let series = known
                .get(&metric)
                .unwrap_or_else(|| panic!("{}: no metric {metric} is emitted", rule.alert));
            for (label, values) in labels {
                assert!(
                    series.iter().any(|(name, _)| *name == label),
                    "{}: {metric} has no label {label}",
                    rule.alert
                );
                for value in values.split('|') {
                    // Any reason and owner can occur; other values must have occurred.
                    let is_known = match label.as_str() {
                        "reason" => Reason::ALL.iter().any(|reason| reason.name() == value),
                        "owner" => Cause::ALL.iter().any(|cause| cause.owner().name() == value),
                        _ => series.contains(&(label.clone(), value.to_owned())),
                    };
                    assert!(is_known, "{}: {metric} never has {label}={value:?}", rule.alert);
                }
            }
        }
    }
}

#[test]
fn every_alert_has_a_summary_a_severity_and_a_runbook() {
    for rule in rules() {
        assert!(
            rule.annotations.get("summary").is_some_and(|summary| summary.ends_with('.')),
            "{}",
            rule.alert
        );
        assert!(
            matches!(rule.labels.get("severity").map(String::as_str), Some("warning" | "critical")),
            "{}",
            rule.alert
        );
        assert!(
            RUNBOOK.contains(&format!("### {}\n", rule.alert)),
            "docs/operations.md has no runbook for {}",
            rule.alert
        );
    }
}
