//! The service's own door: loopback ports that speak HTTP/1.1 and HTTP/2 and pass every request on to the node, bodies and
//! trailers as they come.
//!
//! It settles one thing: a call without a token is the service's if it comes from a process of the same user, for a
//! loopback name, and from no page of another site; it then gets the service's token. A call that carries a token keeps it if
//! that names this service, and the node judges it; any other is refused. What a call means is not known here.

mod caller;
mod forward;
mod gate;
mod listen;

pub use self::listen::Proxy;
