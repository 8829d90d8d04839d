//! How a log line looks, as text or JSON. Every line of a call has the call's method, account and
//! trace id, without being given them. The members of a JSON line have unique names, and control
//! characters are escaped, so that no value can forge a line.

use std::cell::RefCell;
use std::fmt::{self, Debug, Display, Write as _};
use std::io::{IsTerminal, Write as _};

use serde::Serialize;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::layer::Context;

use super::call::{self, Call};

/// How a log line looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// `2026-01-31T12:00:00.000000Z  INFO peerpanda_sso::app: listening login.address=...`
    Text,
    /// One JSON object per line.
    Json,
}

/// Writes each event as one line.
pub(super) struct LogLayer<W> {
    format: LogFormat,
    is_colored: bool,
    write: W,
}

impl LogLayer<fn(&[u8])> {
    pub(super) fn to_stderr(format: LogFormat) -> Self {
        let is_colored = format == LogFormat::Text && std::io::stderr().is_terminal();
        // An error of standard error can't be reported anywhere.
        Self { format, is_colored, write: |line| drop(std::io::stderr().lock().write_all(line)) }
    }
}

impl<S: Subscriber, W: Fn(&[u8]) + 'static> Layer<S> for LogLayer<W> {
    fn on_event(&self, event: &Event<'_>, _ctx: Context<'_, S>) {
        thread_local! {
            static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
        }
        BUFFER.with(|buffer| match buffer.try_borrow_mut() {
            Ok(mut buffer) => {
                buffer.clear();
                self.render(event, &mut buffer);
                (self.write)(&buffer);
            }
            // A value's Debug logs something itself.
            Err(_) => {
                let mut buffer = Vec::new();
                self.render(event, &mut buffer);
                (self.write)(&buffer);
            }
        });
    }
}

impl<W> LogLayer<W> {
    fn render(&self, event: &Event<'_>, buffer: &mut Vec<u8>) {
        let level = event.metadata().level();
        let mut head = Head { target: event.metadata().target().to_owned(), ..Head::default() };
        event.record(&mut head);
        match self.format {
            LogFormat::Text => {
                let (begin, end) = if self.is_colored { (color(level), RESET) } else { ("", "") };
                let mut text = Escaped(buffer);
                let _ = write_time(&mut text);
                text.0.extend_from_slice(format!(" {begin}{level:>5}{end} ").as_bytes());
                let _ = write!(text, "{}: {}", head.target, head.message);
            }
            LogFormat::Json => {
                buffer.extend_from_slice(b"{\"timestamp\":\"");
                let _ = write_time(&mut Escaped(buffer));
                buffer.extend_from_slice(b"\",\"level\":\"");
                let _ = write!(Escaped(buffer), "{level}\"");
            }
        }
        let mut line = Line { buffer, format: self.format, names: RESERVED.to_vec() };
        if self.format == LogFormat::Json {
            line.write("message", &head.message, &"");
        }
        event.record(&mut line);
        let _ = call::current(|call| line.add_call(call));
        if self.format == LogFormat::Json {
            line.write("target", &head.target, &"");
            line.buffer.push(b'}');
        }
        line.buffer.push(b'\n');
    }
}

/// What stands in front of a line's fields.
#[derive(Default)]
struct Head {
    message: String,
    target: String,
}

impl Visit for Head {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        match field.name() {
            // A text before its arguments comes first; a field with this name is one of a library.
            "message" if self.message.is_empty() => self.message = format!("{value:?}"),
            // The `log` crate's records have their target in a field.
            "log.target" => self.target = format!("{value:?}").trim_matches('"').to_owned(),
            _ => {}
        }
    }
}

/// The fields of one line.
struct Line<'a> {
    buffer: &'a mut Vec<u8>,
    format: LogFormat,
    /// Names that are in use.
    names: Vec<&'static str>,
}

impl Line<'_> {
    /// The event's own fields take precedence.
    fn add_call(&mut self, call: &Call) {
        self.add("rpc.method", &call.method(), &format_args!("{:?}", call.method()));
        if let Some(account) = call.account() {
            self.add("account.slug", &account.as_str(), &account);
        }
        if let Some(caller) = call.caller() {
            self.add("caller", &caller, &format_args!("{caller:?}"));
        }
        if let Some(operator) = call.operator() {
            self.add("operator", &operator, &format_args!("{operator:?}"));
        }
        if let Some(peer) = call.peer() {
            self.add("network.peer.address", &peer, &peer);
        }
        let trace_id = call.trace_id();
        self.add("trace_id", &trace_id, &trace_id);
    }

    fn add(&mut self, name: &'static str, json: &impl Serialize, text: &impl Display) {
        if name.starts_with("log.") || self.names.contains(&name) {
            return;
        }
        self.names.push(name);
        self.write(name, json, text);
    }

    fn write(&mut self, name: &str, json: &impl Serialize, text: &impl Display) {
        match self.format {
            LogFormat::Text => {
                let _ = write!(Escaped(self.buffer), " {name}={text}");
            }
            LogFormat::Json => {
                self.buffer.push(b',');
                // Writing to memory can't fail.
                let _ = serde_json::to_writer(&mut *self.buffer, name);
                self.buffer.push(b':');
                let _ = serde_json::to_writer(&mut *self.buffer, json);
            }
        }
    }
}

impl Visit for Line<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.add(field.name(), &format_args!("{value:?}"), &format_args!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.add(field.name(), &value, &format_args!("{value:?}"));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.add(field.name(), &value, &value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.add(field.name(), &value, &value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.add(field.name(), &value, &value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.add(field.name(), &value, &value);
    }
}

/// Text without control characters.
struct Escaped<'a>(&'a mut Vec<u8>);

impl fmt::Write for Escaped<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for part in text.split_inclusive(char::is_control) {
            let (plain, control) = match part.chars().next_back() {
                Some(last) if last.is_control() => {
                    (&part[..part.len() - last.len_utf8()], Some(last))
                }
                _ => (part, None),
            };
            self.0.extend_from_slice(plain.as_bytes());
            if let Some(control) = control {
                self.0.extend_from_slice(control.escape_default().to_string().as_bytes());
            }
        }
        Ok(())
    }
}

fn write_time(to: &mut impl fmt::Write) -> fmt::Result {
    SystemTime.format_time(&mut Writer::new(to))
}

fn color(level: &Level) -> &'static str {
    match *level {
        Level::ERROR => "\x1b[31m",
        Level::WARN => "\x1b[33m",
        Level::INFO => "\x1b[32m",
        Level::DEBUG => "\x1b[34m",
        Level::TRACE => "\x1b[35m",
    }
}

const RESET: &str = "\x1b[0m";
const RESERVED: [&str; 4] = ["timestamp", "level", "message", "target"];

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::{Arc, Mutex};

    use http::HeaderMap;
    use serde::de::{MapAccess, Visitor};
    use serde_json::Value;
    use tracing_subscriber::layer::SubscriberExt;
    use tracing_subscriber::{EnvFilter, Registry};

    use super::*;
    use crate::model::slug::Slug;

    /// A JSON object; reading one with two members of the same name fails.
    struct Object(BTreeMap<String, Value>);

    impl<'de> serde::Deserialize<'de> for Object {
        fn deserialize<D: serde::Deserializer<'de>>(reader: D) -> Result<Self, D::Error> {
            struct Members;
            impl<'de> Visitor<'de> for Members {
                type Value = Object;

                fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                    f.write_str("an object")
                }

                fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Object, A::Error> {
                    let mut members = BTreeMap::new();
                    while let Some((name, value)) = map.next_entry::<String, Value>()? {
                        if members.insert(name.clone(), value).is_some() {
                            return Err(serde::de::Error::custom(format!("{name} occurs twice")));
                        }
                    }
                    Ok(Object(members))
                }
            }
            reader.deserialize_map(Members)
        }
    }

    /// What is logged of events within a call about `acme`, one inside of a span.
    fn logged(format: LogFormat, filter: &str) -> Vec<String> {
        let written = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&written);
        let write = move |line: &[u8]| sink.lock().expect("unlocked").extend_from_slice(line);
        let layer = LogLayer { format, is_colored: false, write };
        let subscriber = Registry::default().with(layer.with_filter(EnvFilter::new(filter)));
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        tracing::subscriber::with_default(subscriber, || {
            let call = Call::start(&HeaderMap::new(), "BeginLogin");
            runtime.block_on(call.run(async {
                call::set_account(&Slug::parse("acme").expect("a slug"));
                call::phase_span("store").in_scope(|| {
                    tracing::warn!(reason = "STATE_USED", count = 3, "login refused: {}", "x\ny");
                });
                tracing::info!(
                    account.slug = %"other", level = "a", target = "b", message = "c", "renewed"
                );
                tracing::debug!(detail = ?Some("d"), "looked up");
            }));
            tracing::info!(is_ready = true, "listening");
        });
        let written = written.lock().expect("unlocked");
        let text = String::from_utf8(written.clone()).expect("UTF-8");
        text.lines().map(str::to_owned).collect()
    }

    #[test]
    fn a_json_line_has_unique_members_and_those_of_its_call() {
        let lines = logged(LogFormat::Json, "peerpanda_sso=info");
        assert_eq!(lines.len(), 3, "{lines:?}");
        let lines: Vec<_> = lines
            .iter()
            .map(|line| {
                let object = serde_json::from_str::<Object>(line);
                object.unwrap_or_else(|error| panic!("{error}: {line}")).0
            })
            .collect();
        let names = |line: &BTreeMap<String, Value>| line.keys().cloned().collect::<Vec<_>>();
        assert_eq!(
            names(&lines[0]),
            [
                "account.slug",
                "count",
                "level",
                "message",
                "reason",
                "rpc.method",
                "target",
                "timestamp",
                "trace_id"
            ]
        );
        assert_eq!(lines[0]["message"], "login refused: x\ny");
        assert_eq!(lines[0]["level"], "WARN");
        assert_eq!(lines[0]["target"], "peerpanda_sso::telemetry::log::tests");
        assert_eq!((&lines[0]["count"], &lines[0]["account.slug"]), (&3.into(), &"acme".into()));
        assert_eq!(lines[0]["trace_id"].as_str().map(str::len), Some(32));
        assert_eq!(lines[0]["trace_id"], lines[1]["trace_id"]);
        assert_eq!(lines[1]["account.slug"], "other", "the event's own field");
        assert_eq!((&lines[1]["message"], &lines[1]["level"]), (&"renewed".into(), &"INFO".into()));
        assert_eq!(names(&lines[2]), ["is_ready", "level", "message", "target", "timestamp"]);
    }

    #[test]
    fn a_text_line_has_the_same_fields_and_no_line_break() {
        let lines = logged(LogFormat::Text, "peerpanda_sso=debug");
        assert_eq!(lines.len(), 4, "{lines:?}");
        assert!(lines[0].contains("  WARN peerpanda_sso::telemetry::log::tests: login refused: x"));
        let fields =
            r#"x\ny reason="STATE_USED" count=3 rpc.method="BeginLogin" account.slug=acme"#;
        assert!(lines[0].contains(fields), "{}", lines[0]);
        assert!(lines[0].contains(" trace_id="), "{}", lines[0]);
        assert!(lines[2].contains(r#"looked up detail=Some("d")"#), "{}", lines[2]);
        assert!(lines[3].ends_with("listening is_ready=true"), "{}", lines[3]);
    }
}
