//! How bytes reach a relay. Nothing here knows what an envelope means, and nothing above here knows what QUIC is.
//!
//! | module | what |
//! | --- | --- |
//! | [`transport`] | the traits: a [`Transport`] makes a [`Link`] to one relay |
//! | [`quic`] | QUIC with a pinned raw public key |
//! | [`backoff`] | how long to wait before the next try |
//!
//! # Security
//! A link exists only after the relay has shown the key that its address names. Whoever sits in between learns the
//! relay's network address, sizes and times; a name is resolved by the system's resolver, which learns the name.

pub mod backoff;
pub mod quic;
pub mod transport;

mod dial;
mod frames;
mod lineage;
mod link;
mod pin;

pub use backoff::Backoff;
pub use quic::{Options, QuicTransport};
pub use transport::{ConnectError, Link, LinkError, Transport};
