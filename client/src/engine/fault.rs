//! Why the engine refused, and what to do about it.

use lapwing_protocol::session::SessionError;

use crate::store::StoreError;

/// A command or event changed nothing, because ...
///
/// The first line is the message, the second [`Fault::hint`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    /// There is no relay in this compartment.
    #[error("this compartment has no relay yet")]
    NoRelay,
    /// The relay is not one of this compartment's.
    #[error("this compartment does not use that relay")]
    UnknownRelay,
    /// The relay is still used by chats.
    #[error("chats of this compartment still receive at that relay")]
    RelayInUse,
    /// The access ticket's text is damaged or something else.
    #[error("that is not a valid access ticket")]
    AccessTicket,
    /// No chat of that name.
    #[error("there is no chat of that name here")]
    UnknownChat,
    /// Two things cannot have one name.
    #[error("there is already a chat of that name")]
    NameTaken,
    /// One check-in to a compartment.
    #[error("a check-in is running in this compartment already")]
    CheckinRuns,
    /// There is none.
    #[error("no check-in is running in this compartment")]
    NoCheckin,
    /// Relays count nothing shorter or longer.
    #[error("a check-in counts from 10 minutes to 400 days")]
    CheckinSpan,
    /// A name has 1 to 64 printable characters.
    #[error("that is not a name: it needs 1 to 64 printable characters")]
    BadName,
    /// Not a ticket.
    #[error("that is not a ticket")]
    NotATicket,
    /// A letter of the ticket is wrong or missing.
    #[error("the ticket is damaged: a letter is missing or was changed")]
    DamagedTicket,
    /// The ticket is too old.
    #[error("the ticket has expired")]
    ExpiredTicket,
    /// The ticket was made by another version.
    #[error("the ticket was made by a newer version of lapwing")]
    NewerTicket,
    /// The ticket was made in this vault.
    #[error("this is a ticket of your own")]
    OwnTicket,
    /// The ticket was used here before.
    #[error("this ticket was already used here")]
    TicketUsedHere,
    /// The contact is not there yet.
    #[error("nobody has used the ticket of this chat yet")]
    NotJoined,
    /// The joining is not done.
    #[error("the contact is not established yet")]
    NotEstablished,
    /// The ticket was used by somebody else, or withdrawn.
    #[error("this contact came to nothing: the ticket was used by somebody else, withdrawn or has expired")]
    ContactFailed,
    /// A handshake is on its way.
    #[error("the session of this chat is being renewed already; the other side has not answered yet")]
    RenewalWaits,
    /// There is nothing to renew the session with.
    #[error("the session of this chat cannot be renewed: nothing of the other side is here to begin it with")]
    NoRenewalTicket,
    /// The backup holds what this version does not know.
    #[error("the backup holds something that this version of lapwing does not know")]
    BadBackup,
    /// The owner blocked the chat.
    #[error("this chat is blocked")]
    Blocked,
    /// No message of that number.
    #[error("there is no message of that number in this chat")]
    UnknownMessage,
    /// The message has no file.
    #[error("this message has no file")]
    NoFile,
    /// A file of ours is not at its relay yet.
    #[error("a file is on its way: its relay does not have all of it yet")]
    FileWaits,
    /// What opened it is erased.
    #[error("what opens this file was erased")]
    FileErased,
    /// Nothing was kept for later.
    #[error("there is no draft for this chat")]
    NoDraft,
    /// The chat is that of a trust.
    #[error("you and this contact are to alert each other: that would end silently with the chat")]
    TrustedChat,
    /// An alert from this chat was not acknowledged.
    #[error("an alert of this contact is not acknowledged yet")]
    AlertWaits,
    /// The group was not left.
    #[error("you are still a member of this group")]
    StillMember,
    /// A group does not move.
    #[error("a group cannot be moved to another compartment")]
    GroupStays,
    /// A mailbox of the chat is not confirmed.
    #[error("a mailbox of this chat is not made yet")]
    MailboxWaits,
    /// An invitation to a group goes through the chat.
    #[error("an invitation to a group that went through this chat is not settled yet")]
    InvitationWaits,
    /// The target has a chat of that name.
    #[error("there is already a chat of that name in that compartment")]
    NameTakenThere,
    /// The target has no relay.
    #[error("that compartment has no relay yet")]
    NoRelayThere,
    /// The target is full.
    #[error("there is not enough room in that compartment")]
    NoRoomThere,
    /// MOV-10: what it holds cannot be carried over whole.
    #[error("some of this chat cannot be read: the keys of its texts do not open; nothing was moved")]
    DoesNotOpen,
    /// It was decided, and there is no room to use it yet.
    #[error("a chat that was moved cannot be shown yet: there is not enough room in its compartment")]
    ArrivalWaits,
    /// The text is empty.
    #[error("there is nothing to send")]
    EmptyText,
    /// The text is too long.
    #[error("the text is longer than a message can be (16,000 bytes)")]
    TextTooLong,
    /// The chat is a group, or is not.
    #[error("this works with one person, not with a group")]
    NotDirect,
    /// The chat is a group, or is not.
    #[error("this chat is not a group")]
    NotAGroup,
    /// The trust does not exist, or the other side has not asked.
    #[error("there is no such trust with this contact")]
    NoTrust,
    /// It exists.
    #[error("this contact is already a trusted contact")]
    AlreadyTrusted,
    /// No alert like that.
    #[error("there is no such alert")]
    UnknownAlert,
    /// Nobody can do it from afar like that.
    #[error("that many contacts cannot set it off together")]
    Voices,
    /// One would do alone what cannot be undone.
    #[error("one contact alone must not set off what destroys")]
    OneVoice,
    /// The contact has given us no voice.
    #[error("you have no voice in anything that this contact prepared")]
    NoVoice,
    /// No plan like that.
    #[error("there is no such plan")]
    UnknownPlan,
    /// The plan is too big.
    #[error("the plan sets off more than one tripwire can hold")]
    PlanTooLarge,
    /// The trusted contact's mailbox is not at a relay that the cover uses.
    #[error("an alert needs a relay that this compartment and the cover both use")]
    NoCommonRelay,
    /// No member like that.
    #[error("there is no member of that name in this group")]
    UnknownMember,
    /// No invitation like that.
    #[error("there is nothing of that name to approve")]
    NoInvitation,
    /// The right is missing.
    #[error("only an admin of the group can do that")]
    NotAdmin,
    /// The group is over, or we are not in it.
    #[error("you are not a member of this group any more")]
    GroupEnded,
    /// The welcome is not complete.
    #[error("the group's history has not arrived yet")]
    GroupNotReady,
    /// The owner cannot leave without ending the group.
    #[error("the owner of a group cannot leave it without ending it")]
    OwnerLeaves,
    /// The group refuses.
    #[error("the group does not allow that: {0}")]
    Group(String),
    /// It is decided and committed; that nothing of it is left in the file is not.
    #[error("not all that is to be erased is gone from the vault's file yet ({0})")]
    NotErased(String),
    /// Storage.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Cryptography refused where it should not have.
    #[error("the session refused: {0}")]
    Session(#[from] SessionError),
    /// A record of ours contradicts another: a defect of this program.
    #[error("the vault's records contradict each other ({0})")]
    Inconsistent(&'static str),
}

impl Fault {
    /// What to do.
    #[must_use]
    pub const fn hint(&self) -> &'static str {
        match self {
            Self::NoRelay => "get an access ticket from your relay's operator and run: lapwing relay add -",
            Self::UnknownRelay => "see: lapwing relay list",
            Self::RelayInUse => "delete or block those chats first; see: lapwing chat list",
            Self::AccessTicket => "copy the whole text that begins with lapwing-access:",
            Self::UnknownChat | Self::NotDirect | Self::NotAGroup => "see: lapwing chat list",
            Self::NameTaken => {
                "choose another name with --name, or rename the other one: lapwing chat rename"
            }
            Self::BadName => "use letters, digits and spaces",
            Self::NotATicket | Self::DamagedTicket => {
                "copy the whole text that begins with lapwing: and paste it into: lapwing join -"
            }
            Self::ExpiredTicket | Self::ContactFailed => "ask for a new ticket",
            Self::NewerTicket => "update lapwing",
            Self::OwnTicket => "give it to the other person; they run: lapwing join -",
            Self::TicketUsedHere => "see: lapwing chat list",
            Self::NotJoined => "give the other person the ticket; when they have joined, run: lapwing sync",
            Self::NotEstablished => "run: lapwing sync --wait 30",
            Self::RenewalWaits => "ask the other person to run: lapwing sync",
            Self::NoRenewalTicket => "make a new contact with a fresh ticket: lapwing invite NAME",
            Self::BadBackup => "update lapwing",
            Self::Blocked => "to undo it: lapwing chat unblock NAME",
            Self::UnknownMessage => "see the numbers with: lapwing read CHAT --numbers",
            Self::NoFile => "see which have one with: lapwing read CHAT --numbers",
            Self::FileWaits => "run: lapwing sync; or give it up: lapwing chat erase",
            Self::FileErased => "ask for it anew",
            Self::NoDraft => "keep one with: lapwing draft CHAT -",
            Self::TrustedChat => "end it first: lapwing trust remove CHAT",
            Self::AlertWaits => "read it with: lapwing alert list; then: lapwing alert ack",
            Self::StillMember => {
                "leave it first: lapwing group leave GROUP; or: lapwing chat delete GROUP --leave"
            }
            Self::GroupStays => {
                "leave it (lapwing group leave GROUP), and be invited again through a chat of that compartment"
            }
            Self::MailboxWaits => "run: lapwing sync",
            Self::InvitationWaits => "run: lapwing sync; or see: lapwing group info",
            Self::NameTakenThere => "choose another one: lapwing chat move CHAT COMPARTMENT --name NAME",
            Self::NoRelayThere => "add one first: lapwing relay add - --compartment NAME",
            Self::NoRoomThere => "nothing was moved; for more room: lapwing grow --size SIZE",
            Self::DoesNotOpen => {
                "run: lapwing doctor; what stays unreadable is erased with: lapwing chat erase CHAT NUMBER; then move it again"
            }
            Self::ArrivalWaits => {
                "nothing is lost; delete what is not needed there, or: lapwing grow --size SIZE"
            }
            Self::EmptyText => "give the text as an argument, or on standard input with -",
            Self::TextTooLong => "send it in parts",
            Self::NoTrust => "see: lapwing trust list",
            Self::AlreadyTrusted => "see: lapwing trust list",
            Self::UnknownAlert => "see: lapwing alert list",
            Self::Voices => "name 1 to 8 people with --alert, and at most as many of them with --remote",
            Self::OneVoice => "say --remote 2 or more; or let it only hide: --do hide",
            Self::NoVoice => {
                "see: lapwing trust list; they give one with: lapwing sos add --alert CHAT --remote N"
            }
            Self::UnknownPlan => "see: lapwing sos list",
            Self::CheckinRuns => "see: lapwing checkin status; to end it: lapwing checkin stop",
            Self::NoCheckin => "begin one with: lapwing checkin start --every 24h",
            Self::CheckinSpan => "for example: lapwing checkin start --every 24h",
            Self::PlanTooLarge => "shorten the texts or alert fewer contacts",
            Self::NoCommonRelay => {
                "add the relay to the compartment with: lapwing relay add - --compartment NAME"
            }
            Self::UnknownMember => "see: lapwing group members GROUP",
            Self::NoInvitation => "see: lapwing group info",
            Self::NotAdmin => "ask an admin; see: lapwing group members GROUP",
            Self::GroupEnded => "ask an admin for a new invitation",
            Self::GroupNotReady => "run: lapwing sync --wait 30",
            Self::OwnerLeaves => "to end the group for everybody: lapwing group leave GROUP --end",
            Self::Group(_) => "see: lapwing group info GROUP",
            Self::NotErased(_) => {
                "it is not shown any more; see that the disk can be written: every further command tries again, and says so until it is done"
            }
            Self::Store(StoreError::Full) => {
                "what is there can still be read; for more room: lapwing grow --size SIZE"
            }
            Self::Store(_) => "run: lapwing doctor",
            Self::Session(_) => "run: lapwing doctor; if it stays, make a new contact with a fresh ticket",
            Self::Inconsistent(_) => "please report this; nothing was changed",
        }
    }
}
