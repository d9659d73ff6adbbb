//! The node's doors: HTTP and gRPC on one port.
//!
//! A door translates bytes into messages for twins and answers back into bytes; it holds no policy beyond who may enter
//! ([`principal`]) and how errors are said ([`problem`]).

pub mod newcomers;
pub mod otlp;
pub mod principal;
pub mod problem;
pub mod when;
