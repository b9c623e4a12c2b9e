//! What the engine's driver asks of a network: links to relays, whatever carries them.

use std::sync::Arc;

use async_trait::async_trait;
use lapwing_wire::{
    address::{RelayAddress, RelayKey},
    capability::ChannelBinding,
    frame::{Notice, RequestBody, ResponseBody},
};

/// Makes links. One transport serves every relay; each call makes a new link that shares nothing with others.
#[async_trait]
pub trait Transport: Send + Sync {
    /// Connects to a relay and checks that it holds the key in its address, or one that this key vouches for (SUC-01).
    ///
    /// # Errors
    /// See [`ConnectError`]. Dropping the future abandons the attempt and everything it began.
    ///
    /// # Security
    /// Implementations return a link only to whoever proved possession of `relay.key()`, or of a key to which signatures
    /// lead from it; then [`Link::heir`] says which.
    async fn connect(&self, relay: &RelayAddress) -> Result<Arc<dyn Link>, ConnectError>;
}

/// One connection to one relay.
///
/// Dropping the last handle ends the connection at once, with everything that worked for it.
#[async_trait]
pub trait Link: Send + Sync {
    /// What proofs on this connection are bound to.
    fn binding(&self) -> ChannelBinding;

    /// The key that the relay showed, where it is another one than the address names; see SUC-02.
    fn heir(&self) -> Option<RelayKey> {
        None
    }

    /// Sends a request and waits for the answer with its number.
    ///
    /// May be called concurrently: requests are pipelined, and a bounded number of them is on the way; further ones
    /// wait. The order of concurrent requests is not promised: await the answer to a proof before what needs it.
    /// Dropping the future forgets the answer, not the request.
    ///
    /// # Errors
    /// See [`LinkError`]. After an error it is unknown whether the relay has acted: requests are idempotent.
    async fn request(&self, body: RequestBody) -> Result<ResponseBody, LinkError>;

    /// The next notice, in the order in which the relay sent them. Notices that nobody takes stay with the relay:
    /// a small buffer, then back pressure. Meant for one caller at a time; with several, each notice goes to one.
    /// Dropping the future loses none.
    ///
    /// # Errors
    /// [`LinkError::Closed`] or [`LinkError::Malformed`] once the link has ended and the buffer is empty.
    async fn notice(&self) -> Result<Notice, LinkError>;

    /// Takes no further request, sends what is waiting, takes the answers that come soon, and ends. Returns at once;
    /// again is nothing.
    fn close(&self);

    /// Resolves when the link has ended and nothing works for it any more. A program that is about to exit calls
    /// [`close`](Self::close), then awaits this. It takes a bounded time. Links without work of their own have
    /// ended as soon as they are closed.
    async fn closed(&self) {}
}

/// Why there is no link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The name does not resolve, nobody answers in time, the network is down, or the relay turns everybody away.
    /// Later may help.
    #[error("the relay cannot be reached")]
    Unreachable,
    /// It answers, and not all that was asked of it was done when the time was over. Later may help.
    #[error("the relay did not do in time all that was asked")]
    Slow,
    /// Somebody answers at the address, with another key than the address names: a relay set up anew, another
    /// service, or an attack. Trying again does not help; a new address from the operator does, if it was asked for
    /// over a way that can be trusted.
    #[error("the relay shows another key than its address names")]
    WrongKey,
    /// Somebody answers who does not speak this protocol: another version, another service.
    #[error("what answers at the relay's address does not speak this protocol")]
    Protocol,
}

/// Why a request has no answer, or no notice comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LinkError {
    /// The link has ended: closed here, closed by the relay, or broken. Connect again.
    #[error("the connection to the relay has ended")]
    Closed,
    /// No answer in time. The link may still work, and the relay may have acted.
    #[error("the relay did not answer in time")]
    Timeout,
    /// The relay sent what is no answer. Where numbers cannot be trusted any more the link has ended too.
    #[error("the relay sent an answer that makes no sense")]
    Malformed,
    /// The request does not fit into a frame. It was not sent; the link works on.
    #[error("the request is too large to send")]
    TooLarge,
}
