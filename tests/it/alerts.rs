//! The chart's alert rules and its dashboard, checked against the metrics that the program emits and
//! the runbook.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use peerpanda_sso::clock::SystemClock;
use peerpanda_sso::model::cause::Cause;
use peerpanda_sso::model::reason::Reason;
use peerpanda_sso::pb;
use promql_parser::parser::{Expr, LabelModifier, VectorSelector};
use promql_parser::util::{ExprVisitor, walk_expr};
use rcgen::{CertificateParams, KeyPair};
use serde::Deserialize;

use crate::binary::Program;
use crate::fake_idp::FakeIdp;
use crate::harness::{begin_request, reason};
use crate::operations::{get, metrics_port};

const RULES: &str = include_str!("../../helm/peerpanda-sso/files/alerts.yaml");
const DASHBOARD: &str = include_str!("../../helm/peerpanda-sso/files/dashboard.json");
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

/// What an expression names: metrics with their labels and values, and the labels that it groups by.
#[derive(Default)]
struct Named {
    selectors: Vec<(String, Vec<(String, String)>)>,
    groups: BTreeSet<String>,
    is_aggregated: bool,
}

impl Named {
    fn take(&mut self, selector: &VectorSelector) {
        let matchers = selector.matchers.matchers.iter();
        let labels =
            matchers.map(|matcher| (matcher.name.clone(), matcher.value.clone())).collect();
        self.selectors.push((selector.name.clone().expect("a metric's name"), labels));
    }
}

impl ExprVisitor for Named {
    type Error = ();

    fn pre_visit(&mut self, expr: &Expr) -> Result<bool, ()> {
        match expr {
            Expr::VectorSelector(selector) => self.take(selector),
            Expr::MatrixSelector(matrix) => self.take(&matrix.vs),
            Expr::Aggregate(aggregate) => {
                self.is_aggregated = true;
                match &aggregate.modifier {
                    Some(LabelModifier::Include(labels)) => {
                        self.groups.extend(labels.labels.clone());
                    }
                    Some(LabelModifier::Exclude(_)) => panic!("group by labels that are known"),
                    None => {}
                }
            }
            _ => {}
        }
        Ok(true)
    }
}

/// Metric -> its labels and their values.
type Series = BTreeMap<String, BTreeSet<(String, String)>>;

/// Labels that Prometheus adds to every series of a target.
const TARGET_LABELS: [&str; 2] = ["job", "pod"];

/// Checks that the metrics, labels and values of a query can occur, and gives the labels that its
/// result can have.
fn result_labels(what: &str, query: &str, known: &Series) -> BTreeSet<String> {
    let expr = promql_parser::parser::parse(query)
        .unwrap_or_else(|error| panic!("{what}: {error}: {query}"));
    let mut named = Named::default();
    walk_expr(&mut named, &expr).expect("walked");
    assert!(!named.selectors.is_empty(), "{what} selects nothing");
    let mut all: BTreeSet<String> = TARGET_LABELS.map(str::to_owned).into();
    for (metric, labels) in named.selectors {
        let series =
            known.get(&metric).unwrap_or_else(|| panic!("{what}: no metric {metric} is emitted"));
        all.extend(series.iter().map(|(name, _)| name.clone()));
        for (label, values) in labels {
            if TARGET_LABELS.contains(&label.as_str()) {
                continue;
            }
            assert!(
                series.iter().any(|(name, _)| *name == label),
                "{what}: {metric} has no label {label}"
            );
            for value in values.split('|') {
                // Any reason and owner can occur; other values must have occurred.
                let is_known = match label.as_str() {
                    "reason" => Reason::ALL.iter().any(|reason| reason.name() == value),
                    "owner" => Cause::ALL.iter().any(|cause| cause.owner().name() == value),
                    _ => series.contains(&(label.clone(), value.to_owned())),
                };
                assert!(is_known, "{what}: {metric} never has {label}={value:?}");
            }
        }
    }
    assert!(named.groups.is_subset(&all), "{what}: groups by {:?} of {all:?}", named.groups);
    if named.is_aggregated { named.groups } else { all }
}

/// The names between `start` and `end` in a template.
fn placeholders<'a>(template: &'a str, start: &str, end: &str) -> Vec<&'a str> {
    let parts = template.split(start).skip(1);
    parts.map(|part| part.split_once(end).expect("closed").0.trim()).collect()
}

/// Collects the labels of each metric and their values.
fn emitted(metrics: &str, into: &mut Series) {
    for line in metrics.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
        let series = line.rsplit_once(' ').map_or("", |(series, _)| series);
        let (name, labels) = series.split_once('{').unwrap_or((series, ""));
        let labels =
            labels.trim_end_matches('}').split("\",").filter_map(|pair| pair.split_once("=\""));
        let labels =
            labels.map(|(name, value)| (name.to_owned(), value.trim_end_matches('"').to_owned()));
        into.entry(name.to_owned()).or_default().extend(labels);
    }
}

/// The metrics of a program that has logged somebody in and refused others, and of one with TLS.
async fn emitted_series() -> Series {
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

    known
}

#[tokio::test(flavor = "multi_thread")]
async fn every_alert_and_every_panel_speaks_of_metrics_that_are_emitted() {
    let known = emitted_series().await;
    let rules = rules();
    assert!(rules.len() > 10);
    for rule in &rules {
        let labels = result_labels(&rule.alert, &rule.expr, &known);
        for label in placeholders(&rule.annotations["summary"], "$labels.", "}}") {
            assert!(labels.contains(label), "{}: {label} of {labels:?}", rule.alert);
        }
    }

    let panels = panels();
    assert!(panels.len() > 20);
    for panel in &panels {
        for target in &panel.targets {
            let query = target.expr.replace("$__rate_interval", "5m").replace("\"$job\"", "\".+\"");
            assert!(!query.contains('$'), "{}: an unknown variable in {query}", panel.title);
            let labels = result_labels(&panel.title, &query, &known);
            for label in placeholders(&target.legend, "{{", "}}") {
                assert!(labels.contains(label), "{}: {label} of {labels:?}", panel.title);
            }
        }
        for alert in panel.description.split(|c: char| !c.is_alphanumeric()) {
            let is_alert = alert.starts_with("Sso");
            assert!(
                !is_alert || rules.iter().any(|rule| rule.alert == alert),
                "{}: the alert {alert} does not exist",
                panel.title
            );
        }
    }
}

#[derive(Deserialize)]
struct Dashboard {
    panels: Vec<Panel>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Panel {
    id: u32,
    #[serde(rename = "type")]
    kind: String,
    title: String,
    #[serde(default)]
    description: String,
    grid_pos: Place,
    #[serde(default)]
    targets: Vec<Target>,
}

#[derive(Deserialize)]
struct Place {
    h: u32,
    w: u32,
    x: u32,
    y: u32,
}

#[derive(Deserialize)]
struct Target {
    expr: String,
    #[serde(rename = "legendFormat")]
    legend: String,
}

/// The dashboard's panels without its headings.
fn panels() -> Vec<Panel> {
    let dashboard: Dashboard = serde_json::from_str(DASHBOARD).expect("a dashboard");
    dashboard.panels.into_iter().filter(|panel| panel.kind != "row").collect()
}

#[test]
fn every_panel_has_a_place_an_explanation_and_a_query() {
    let (mut ids, mut taken) = (BTreeSet::new(), BTreeSet::new());
    for Panel { id, title, description, grid_pos: Place { h, w, x, y }, targets, .. } in panels() {
        assert!(ids.insert(id), "{title}: a second panel {id}");
        assert!(x + w <= 24, "{title}: Grafana's grid has 24 columns");
        for cell in (x..x + w).flat_map(|x| (y..y + h).map(move |y| (x, y))) {
            assert!(taken.insert(cell), "{title} overlaps another panel");
        }
        assert!(description.ends_with('.'), "{title}");
        assert!(!targets.is_empty(), "{title}");
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
