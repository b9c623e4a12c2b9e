//! Encrypted messaging: what two people, or a group, can say to each other without anybody else reading it.
//!
//! Nothing here performs input or output, reads a clock, makes randomness or needs an async runtime: time and
//! generators are arguments, state goes in and out as bytes. The byte formats and numbered rules are those of
//! `docs/protocol.md`.
//!
//! Promised: confidentiality and authenticity against everybody but the two ends, post-quantum included; forward
//! secrecy; healing after a compromise; no panic and no half-changed state from any input. Not promised: anything
//! about who talks to whom (that is the envelope's and the relay's part), and anything once a device is read while
//! unlocked.
//!
//! | module | what |
//! | --- | --- |
//! | [`ticket`] | the text or QR code that starts a contact |
//! | [`route`] | where and how to send to somebody |
//! | [`envelope`] | what a relay carries: sealed, in four sizes |
//! | [`content`] | what an opened message contains |
//! | [`attachment`] | files that are sent with messages |
//! | [`timer`] | how long messages are kept once they were shown |
//! | [`anchor`] | opening a vault with a part of its keys at a relay |
//! | [`alert`] | alerts, and what makes a trusted contact |
//! | [`group`] | membership as a signed chain, epochs, logs, group messages |
//! | [`renewal`] | beginning a session anew with somebody who is known |
//! | [`session`] | pairwise sessions, sender keys, bundles, safety numbers: libsignal behind one door |
//! | [`identity`] | the public half of an identity |
//! | [`signing`] | statements signed by an identity |
//! | [`secret`] | the container for bytes that must not be seen or left behind |
//! | [`labels`] | every domain-separation label |

pub mod alert;
pub mod anchor;
pub mod attachment;
mod codec;
pub mod content;
pub mod envelope;
pub mod group;
pub mod identity;
pub mod labels;
pub mod renewal;
pub mod route;
mod seal;
pub mod secret;
pub mod session;
pub mod signing;
#[cfg(test)]
mod testing;
pub mod ticket;
pub mod timer;
#[cfg(test)]
mod vectors;
