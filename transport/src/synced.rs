//! A source whose acknowledgements wait until a file system is synced.
//!
//! In: another source. Out: the same deliveries. The embedded database does not sync what it
//! commits, so that a batch may be removed from the queue only after the disk has the commit. When
//! a sync fails, nothing is acknowledged any more and the process has to stop.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use tokio_util::sync::CancellationToken;

use crate::{Delivery, DeliveryTag, Source};

/// Wraps a source; see the module.
pub struct SyncedSource {
    source: Box<dyn Source>,
    directory: Arc<File>,
    failed: CancellationToken,
}

impl SyncedSource {
    /// Wraps `source` so that the file system of `directory` is synced before each acknowledgement.
    /// A failed sync cancels `failed`.
    ///
    /// # Errors
    /// The directory cannot be opened.
    pub fn new(
        source: Box<dyn Source>,
        directory: &Path,
        failed: CancellationToken,
    ) -> std::io::Result<Self> {
        let directory = Arc::new(File::open(directory)?);
        Ok(Self {
            source,
            directory,
            failed,
        })
    }

    async fn acknowledge(&mut self, tag: DeliveryTag) {
        let directory = self.directory.clone();
        let synced = tokio::task::spawn_blocking(move || rustix::fs::syncfs(&directory)).await;
        match synced {
            Ok(Ok(())) if !self.failed.is_cancelled() => {
                self.source.acknowledge_through(tag).await;
            }
            other => {
                tracing::error!(?other, "the disk of the embedded PostgreSQL failed");
                self.failed.cancel();
            }
        }
    }
}

impl Source for SyncedSource {
    fn next(&mut self) -> BoxFuture<'_, Delivery> {
        self.source.next()
    }

    fn try_next(&mut self) -> Option<Delivery> {
        self.source.try_next()
    }

    fn acknowledge_through(&mut self, tag: DeliveryTag) -> BoxFuture<'_, ()> {
        self.acknowledge(tag).boxed()
    }

    fn reject(&mut self, tag: DeliveryTag) -> BoxFuture<'_, bool> {
        self.source.reject(tag)
    }

    fn close(&mut self) -> BoxFuture<'_, ()> {
        self.source.close()
    }
}

#[cfg(test)]
mod tests {
    use schema::Batch;

    use super::*;
    use crate::testing::{ScriptedSource, SourceCall};

    #[tokio::test]
    async fn an_acknowledgement_reaches_the_source_after_a_sync_and_never_after_a_failed_one() {
        let directory = tempfile::tempdir().unwrap();
        let failed = CancellationToken::new();
        let (source, mut control) = ScriptedSource::new();
        let mut synced =
            SyncedSource::new(Box::new(source), directory.path(), failed.clone()).unwrap();
        let (first, second) = (control.deliver(Batch::new()), control.deliver(Batch::new()));
        assert_eq!(synced.next().await.tag, first);
        assert_eq!(synced.try_next().map(|delivery| delivery.tag), Some(second));
        synced.acknowledge_through(first).await;
        let acknowledged = SourceCall::AcknowledgeThrough(first);
        assert_eq!(control.try_next_call(), Some(acknowledged));
        assert!(synced.reject(second).await);
        assert_eq!(control.try_next_call(), Some(SourceCall::Reject(second)));
        // Another sync has failed in the meantime.
        failed.cancel();
        synced.acknowledge_through(second).await;
        assert_eq!(control.try_next_call(), None);
        synced.close().await;
        assert_eq!(control.try_next_call(), Some(SourceCall::Close));
    }
}
