use reqwest_refresh::{Error, Event, Events};

/// What has been told so far, a line each; waits for nothing.
pub async fn told(events: &mut Events) -> Vec<String> {
    let mut lines = Vec::new();
    loop {
        let event = tokio::select! {
            biased;
            event = events.next() => event,
            () = std::future::ready(()) => return lines,
        };
        let Some(event) = event else { return lines };
        lines.push(match event {
            Event::LoginDue { .. } => "login due".into(),
            Event::LoginRequired { reason, .. } => format!("login required: {reason:?}"),
            Event::NotSaved { error, .. } => format!("not saved: {}", kind(&error)),
            Event::RefreshFailed { error, .. } => format!("refresh failed: {}", kind(&error)),
            Event::Refreshed { generation, .. } => format!("refreshed {generation}"),
            Event::Saved => "saved".into(),
            other => format!("{other:?}"),
        });
    }
}

fn kind(error: &Error) -> String {
    error.kind().to_string()
}
