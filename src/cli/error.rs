//! What can go wrong for somebody at a terminal, what to do about it, and how the process ends then.

use std::io;

use reqwest::StatusCode;
use serde_json::Value;

use super::print::plain;

/// Why a command did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nobody answers.
    #[error("no node answers at {node} ({cause})")]
    Unreachable {
        /// Where one was looked for.
        node: String,
        /// What the network said.
        cause: String,
    },
    /// The node said no.
    #[error("{code}: {detail}")]
    Refused {
        /// HTTP status.
        status: u16,
        /// Code of the problem.
        code: String,
        /// What happened, in the node's words.
        detail: String,
    },
    /// The node said something that is not understood.
    #[error("the node's answer is not understood: {0}")]
    Answer(String),
    /// An argument is wrong in a way that only shows later.
    #[error("{0}")]
    Usage(String),
    /// A node that was to be started in this process.
    #[error("the node does not start: {0}")]
    Node(String),
    /// A file or the terminal.
    #[error("{what}: {source}")]
    Io {
        /// Which.
        what: String,
        /// Why.
        source: io::Error,
    },
}

/// How the process ends; the numbers are part of the interface (`twin --help`).
pub mod code {
    /// Something failed.
    pub const FAILED: u8 = 1;
    /// The command line is wrong.
    pub const USAGE: u8 = 2;
    /// There is no such twin, feature, command or key.
    pub const NOT_FOUND: u8 = 3;
    /// The node refused: a precondition, a conflict, a limit, an invalid request.
    pub const REFUSED: u8 = 4;
    /// No key, a wrong one, or one that does not cover this.
    pub const DENIED: u8 = 5;
    /// No node answers, or it cannot serve at present.
    pub const UNAVAILABLE: u8 = 6;
}

impl Error {
    /// From the body of an answer that is no success.
    pub(crate) fn refused(status: StatusCode, body: &[u8]) -> Self {
        let problem: Value = serde_json::from_slice(body).unwrap_or(Value::Null);
        let text = |name: &str| problem.get(name).and_then(Value::as_str).map(|text| plain(text).into_owned());
        Self::Refused {
            status: status.as_u16(),
            code: text("code").unwrap_or_else(|| status.to_string()),
            detail: text("detail")
                .unwrap_or_else(|| plain(String::from_utf8_lossy(body).trim()).chars().take(400).collect::<String>()),
        }
    }

    /// From a file or the terminal.
    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }

    /// Whether the reader of our output has gone, which is its right.
    pub(crate) fn is_closed_pipe(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == io::ErrorKind::BrokenPipe)
    }

    /// How the process ends.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Unreachable { .. } => code::UNAVAILABLE,
            Self::Refused { status, .. } => match status {
                401 | 403 => code::DENIED,
                404 | 410 => code::NOT_FOUND,
                429 | 502..=504 => code::UNAVAILABLE,
                400..500 => code::REFUSED,
                _ => code::FAILED,
            },
            Self::Usage(_) => code::USAGE,
            Self::Answer(_) | Self::Node(_) | Self::Io { .. } => code::FAILED,
        }
    }

    /// What to do about it, if that is known.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Unreachable { node, .. } => {
                Some(format!("start one with 'twin serve', or say where it is: --node URL or TWIN_NODE (now {node})"))
            }
            Self::Refused { status: 401, .. } => Some(
                "give a key with --key or TWIN_KEY; a node writes its first one into operator.key of its data folder, \
                 where 'twin' finds it if --data-dir (TWIN_DATA_DIR) names that folder"
                    .into(),
            ),
            Self::Refused { status: 403, .. } => Some(
                "this key does not cover that; 'twin key ls', run with an operator key, lists what each one covers"
                    .into(),
            ),
            Self::Refused { status: 412, .. } => {
                Some("it was changed since; read it again and repeat with the revision you see then".into())
            }
            Self::Refused { code, detail, .. } if code == "not-found" => Some(missing(detail).into()),
            Self::Refused { code, .. } if !code.contains(' ') => {
                Some(format!("more about this: GET /problems/{code} on the node"))
            }
            Self::Refused { .. } | Self::Answer(_) | Self::Usage(_) | Self::Node(_) | Self::Io { .. } => None,
        }
    }
}

/// Where to find the names there are, told by what is not found.
fn missing(detail: &str) -> &'static str {
    match detail.split(' ').next().unwrap_or_default() {
        "feature" | "instance" => "'twin get ID' shows features and instances of a twin",
        "command" => "'twin command ID ls' lists the commands of a twin",
        "key" => "'twin key ls' lists the keys there are",
        "secret" => "'twin secret ls ID' lists the secrets of a service",
        "grant" => "'twin grant ls ID' lists them; those of the profile are denied, not taken away",
        "configuration" => "'twin config get ID' shows the keys there are",
        "revision" | "a" => "'twin journal ID' lists the revisions of a twin, with their times",
        _ => "'twin ls' lists the twins there are",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_keeps_its_code_and_detail_and_says_how_to_end() {
        let body = br#"{"code":"not-found","detail":"there is no twin 'shop/cart'","status":404}"#;
        let error = Error::refused(StatusCode::NOT_FOUND, body);
        assert_eq!(error.to_string(), "not-found: there is no twin 'shop/cart'");
        assert_eq!(error.exit_code(), code::NOT_FOUND);
        assert!(error.hint().unwrap().contains("twin ls"));
        for (missing, where_to_look) in [
            ("feature 'limits' not found", "'twin get ID'"),
            ("command 7 not found", "'twin command ID ls'"),
            ("key not found", "'twin key ls'"),
            ("secret 'db' not found", "'twin secret ls ID'"),
            ("revision 9 (the newest is 4) not found", "'twin journal ID'"),
            ("service 'shop/cart' not found", "'twin ls'"),
        ] {
            let body = serde_json::json!({ "code": "not-found", "detail": missing }).to_string();
            let hint = Error::refused(StatusCode::NOT_FOUND, body.as_bytes()).hint().unwrap();
            assert!(hint.starts_with(where_to_look), "{missing}: {hint}");
        }
    }

    #[test]
    fn an_answer_that_is_no_problem_is_shown_as_it_is() {
        let error = Error::refused(StatusCode::BAD_GATEWAY, b"upstream is gone\n");
        assert_eq!(error.to_string(), "502 Bad Gateway: upstream is gone");
        assert_eq!(error.exit_code(), code::UNAVAILABLE);
        let told = Error::refused(StatusCode::BAD_REQUEST, br#"{"code":"invalid","detail":"no \u001b[2Jfield"}"#);
        assert_eq!(told.to_string(), "invalid: no \u{fffd}[2Jfield", "a terminal obeys nothing of it");
        let told = Error::refused(StatusCode::BAD_GATEWAY, b"\x1b]0;gone\x07");
        assert_eq!(told.to_string(), "502 Bad Gateway: \u{fffd}]0;gone\u{fffd}");
    }

    #[test]
    fn each_way_to_be_refused_ends_in_its_own_way() {
        let code_of = |status: u16| Error::refused(StatusCode::from_u16(status).unwrap(), b"{}").exit_code();
        assert_eq!([401, 403].map(code_of), [code::DENIED; 2]);
        assert_eq!([409, 412, 422].map(code_of), [code::REFUSED; 3]);
        assert_eq!([429, 503, 504].map(code_of), [code::UNAVAILABLE; 3]);
        assert_eq!(code_of(500), code::FAILED);
    }
}
