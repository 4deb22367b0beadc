use std::cell::RefCell;
use std::fmt::{Debug, Write as _};

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

use crate::simulation::server::CANARY;

thread_local! {
    /// What was logged with a token in it.
    static LEAK: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Reads every span and event, as any subscriber may (K-63).
pub struct Reader;

/// What this thread has logged with a token in it, if anything.
pub fn take_leak() -> Option<String> {
    LEAK.with_borrow_mut(Option::take)
}

#[derive(Default)]
struct Text(String);

impl Text {
    fn check(self) {
        if self.0.contains(CANARY) {
            LEAK.with_borrow_mut(|leak| *leak = Some(self.0));
        }
    }
}

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        write!(self.0, "{field}={value:?} ").unwrap();
    }
}

impl Subscriber for Reader {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("reqwest_refresh")
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        let mut text = Text::default();
        span.record(&mut text);
        text.check();
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, values: &Record<'_>) {
        let mut text = Text::default();
        values.record(&mut text);
        text.check();
    }

    fn event(&self, event: &Event<'_>) {
        let mut text = Text::default();
        event.record(&mut text);
        text.check();
    }

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}
