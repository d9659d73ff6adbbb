//! Server-sent events: bytes in, events out (WHATWG HTML, section 9.2.6).

use std::collections::VecDeque;

/// One event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Event {
    /// Its id, to go on after it.
    pub id: Option<String>,
    /// Its type.
    pub kind: String,
    /// What it says.
    pub data: String,
}

/// Cuts a stream of bytes into events.
#[derive(Debug, Default)]
pub(crate) struct Events {
    rest: Vec<u8>,
    open: Event,
    ready: VecDeque<Event>,
}

impl Events {
    /// Takes bytes as they come, cut wherever.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.rest.extend_from_slice(bytes);
        while let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.rest.drain(..=end).collect();
            let line = String::from_utf8_lossy(&line);
            self.line(line.trim_end_matches(['\n', '\r']));
        }
    }

    /// The next event that is complete.
    pub(crate) fn pop(&mut self) -> Option<Event> {
        self.ready.pop_front()
    }

    fn line(&mut self, line: &str) {
        if line.is_empty() {
            let event = std::mem::take(&mut self.open);
            if !event.data.is_empty() {
                self.ready.push_back(event);
            }
            return;
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "id" => self.open.id = Some(value.to_owned()),
            "event" => value.clone_into(&mut self.open.kind),
            "data" => {
                if !self.open.data.is_empty() {
                    self.open.data.push('\n');
                }
                self.open.data.push_str(value);
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_out_whole_however_the_bytes_are_cut() {
        let text =
            ": keep-alive\n\nid: 1.7\r\nevent: twin.health\r\ndata: {\"a\":\"\u{f6}\"}\r\n\r\ndata: x\ndata: y\n\n";
        for size in 1..text.len() {
            let mut events = Events::default();
            text.as_bytes().chunks(size).for_each(|piece| events.push(piece));
            let first = Event { id: Some("1.7".into()), kind: "twin.health".into(), data: "{\"a\":\"\u{f6}\"}".into() };
            assert_eq!(events.pop(), Some(first), "cut at {size}");
            assert_eq!(events.pop().map(|event| event.data), Some("x\ny".to_owned()));
            assert_eq!(events.pop(), None);
        }
    }
}
