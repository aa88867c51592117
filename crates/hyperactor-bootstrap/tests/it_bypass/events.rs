//! The events that the crate raises in this process, kept for the tests to count.

use std::fmt;
use std::sync::OnceLock;

use parking_lot::Mutex;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Level, Metadata, Subscriber};

static ALL: OnceLock<Mutex<Vec<Event>>> = OnceLock::new();

/// One event of this project.
#[derive(Clone, Debug)]
pub(crate) struct Event {
    pub(crate) level: Level,
    /// Its field `event`.
    pub(crate) name: String,
    /// Every field with its value, the message too.
    pub(crate) text: String,
}

/// What is raised from here on.
pub(crate) struct Events {
    from: usize,
}

impl Events {
    /// Looks from now on. Tests of one process share the subscriber, so what is counted is told apart by its text.
    pub(crate) fn watch() -> Self {
        let all = ALL.get_or_init(|| {
            if let Err(error) = tracing::subscriber::set_global_default(Watcher) {
                panic!("somebody else watches the log: {error}");
            }
            Mutex::default()
        });
        let from = all.lock().len();
        Self { from }
    }

    /// The events of a name that speak of something.
    pub(crate) fn named(&self, name: &str, about: &str) -> Vec<Event> {
        self.filter(|event| event.name == name && event.text.contains(about))
    }

    /// What is said of something in a log without details: events of the level INFO and more important ones.
    pub(crate) fn lines(&self, about: &str) -> Vec<Event> {
        self.filter(|event| event.level <= Level::INFO && event.text.contains(about))
    }

    fn filter(&self, is_meant: impl Fn(&Event) -> bool) -> Vec<Event> {
        let Some(all) = ALL.get() else {
            return Vec::new();
        };
        let all = all.lock();
        all[self.from..]
            .iter()
            .filter(|event| is_meant(event))
            .cloned()
            .collect()
    }
}

struct Watcher;

impl Subscriber for Watcher {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("hyperactor")
    }

    fn event(&self, event: &tracing::Event<'_>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        if let Some(all) = ALL.get() {
            all.lock().push(Event {
                level: *event.metadata().level(),
                name: fields.name,
                text: fields.text,
            });
        }
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

#[derive(Default)]
struct Fields {
    name: String,
    text: String,
}

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "event" {
            self.name = value.to_owned();
        }
        self.record_debug(field, &value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.text += &format!("{}={value:?} ", field.name());
    }
}
