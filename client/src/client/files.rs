//! Sending and fetching files.

use lapwing_protocol::attachment::Attachment;

use super::Client;
use crate::{
    driver::{FetchError, Next, Take, UploadReport},
    engine::files::{self, Upload},
    store::Unit,
};

impl Client {
    /// Whether files wait to be sent.
    #[must_use]
    pub fn has_uploads(&self) -> bool {
        // One that cannot be read is told of by sending.
        let waits = |base| files::uploads(&Unit::new(base), None).is_ok_and(|waiting| waiting.is_empty());
        !self.compartments.iter().all(|compartment| waits(&*compartment.base))
    }

    /// Sends the files that wait, until all are at their relays or another command wants the vault. `each` is told of each
    /// part: bytes that the relay has, and bytes of all.
    pub async fn upload(&mut self, each: &mut dyn FnMut(&Upload, u64, u64)) -> UploadReport {
        let Self { session, driver, compartments, .. } = self;
        let mut watch = |upload: &Upload, done: u64, total: u64| {
            each(upload, done, total);
            if session.lock_requested().unwrap_or(false) { Next::End } else { Next::On }
        };
        driver.upload(compartments, &mut watch).await
    }

    /// Fetches a file; `take` gets its bytes in order.
    ///
    /// # Errors
    /// [`FetchError`]; what was taken by then must not be used.
    pub async fn fetch<E>(
        &mut self,
        attachment: &Attachment,
        take: &mut Take<'_, E>,
    ) -> Result<(), FetchError<E>> {
        self.driver.fetch(attachment, take).await
    }
}
