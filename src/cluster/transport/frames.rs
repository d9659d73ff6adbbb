//! The frames of a stream between nodes (docs/cluster.md, "Calls between nodes").

use tokio::sync::mpsc;

use super::{BATCH_BYTES, BATCH_FRAMES_MAX};
use crate::{
    cluster::{Incarnation, NodeId, Owner},
    store::Epoch,
};

/// One message of the stream.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Batch {
    #[prost(message, repeated, tag = "1")]
    pub(super) frames: Vec<Frame>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Frame {
    #[prost(oneof = "Kind", tags = "1, 2, 3, 4, 5, 6")]
    pub(super) kind: Option<Kind>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
pub(super) enum Kind {
    /// First of a stream, alone in its batch.
    #[prost(message, tag = "1")]
    Hello(Hello),
    #[prost(message, tag = "2")]
    Ask(AskFrame),
    #[prost(message, tag = "3")]
    Answer(AnswerFrame),
    #[prost(message, tag = "4")]
    Moved(MovedFrame),
    /// There is an answer that cannot be sent.
    #[prost(message, tag = "5")]
    Failed(FailedFrame),
    #[prost(message, tag = "6")]
    Released(SlotOwner),
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Hello {
    #[prost(uint32, tag = "1")]
    pub(super) version: u32,
    #[prost(string, tag = "2")]
    pub(super) cluster: String,
    #[prost(string, tag = "3")]
    pub(super) from: String,
    /// Who is meant; another may have its address meanwhile.
    #[prost(string, tag = "4")]
    pub(super) to: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct AskFrame {
    #[prost(uint64, tag = "1")]
    pub(super) id: u64,
    #[prost(uint32, tag = "2")]
    pub(super) slot: u32,
    #[prost(uint64, tag = "3")]
    pub(super) epoch: u64,
    /// What was left of the deadline when it was sent; clocks differ.
    #[prost(uint64, tag = "4")]
    pub(super) within_ms: u64,
    #[prost(bytes = "vec", tag = "5")]
    pub(super) call: Vec<u8>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct AnswerFrame {
    #[prost(uint64, tag = "1")]
    pub(super) id: u64,
    #[prost(bytes = "vec", tag = "2")]
    pub(super) answer: Vec<u8>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct MovedFrame {
    #[prost(uint64, tag = "1")]
    pub(super) id: u64,
    #[prost(message, optional, tag = "2")]
    pub(super) owner: Option<OwnerFrame>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct FailedFrame {
    #[prost(uint64, tag = "1")]
    pub(super) id: u64,
    #[prost(string, tag = "2")]
    pub(super) cause: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct SlotOwner {
    #[prost(uint32, tag = "1")]
    pub(super) slot: u32,
    #[prost(message, optional, tag = "2")]
    pub(super) owner: Option<OwnerFrame>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct OwnerFrame {
    #[prost(string, tag = "1")]
    pub(super) node: String,
    #[prost(uint64, tag = "2")]
    pub(super) incarnation: u64,
    #[prost(bool, tag = "3")]
    pub(super) released: bool,
    #[prost(uint64, tag = "4")]
    pub(super) epoch: u64,
}

impl From<Owner> for OwnerFrame {
    fn from(owner: Owner) -> Self {
        let Owner { node, incarnation, released, epoch } = owner;
        Self { node: node.to_string(), incarnation: incarnation.0, released, epoch: epoch.0 }
    }
}

impl OwnerFrame {
    /// `None` if the name is none.
    pub(super) fn owner(self) -> Option<Owner> {
        let Self { node, incarnation, released, epoch } = self;
        let node = NodeId::parse(&node).ok()?;
        Some(Owner { node, incarnation: Incarnation(incarnation), released, epoch: Epoch(epoch) })
    }
}

impl From<Kind> for Frame {
    fn from(kind: Kind) -> Self {
        Self { kind: Some(kind) }
    }
}

impl Kind {
    /// About how many bytes it has on the wire.
    fn bytes(&self) -> usize {
        const HEAD: usize = 64;
        HEAD + match self {
            Self::Ask(ask) => ask.call.len(),
            Self::Answer(answer) => answer.answer.len(),
            Self::Hello(_) | Self::Moved(_) | Self::Failed(_) | Self::Released(_) => 64,
        }
    }
}

/// Collects one batch.
pub(super) struct Collector {
    batch: Batch,
    bytes: usize,
}

impl Collector {
    pub(super) fn new() -> Self {
        Self { batch: Batch::default(), bytes: 0 }
    }

    pub(super) fn push(&mut self, kind: Kind) {
        self.bytes += kind.bytes();
        self.batch.frames.push(kind.into());
    }

    pub(super) fn is_full(&self) -> bool {
        self.bytes >= BATCH_BYTES || self.batch.frames.len() >= BATCH_FRAMES_MAX
    }

    /// The batch, unless nothing was collected.
    pub(super) fn take(self) -> Option<Batch> {
        (!self.batch.frames.is_empty()).then_some(self.batch)
    }
}

/// The next batch of whatever waits, as `open` makes frames of it (`None`: not to be sent any more); `None` once nobody
/// sends.
pub(super) async fn next_batch<T>(
    waiting: &mut mpsc::Receiver<T>,
    mut open: impl FnMut(T) -> Option<Kind>,
) -> Option<Batch> {
    loop {
        let mut collector = Collector::new();
        let mut next = Some(waiting.recv().await?);
        while let Some(item) = next {
            if let Some(kind) = open(item) {
                collector.push(kind);
            }
            next = if collector.is_full() { None } else { waiting.try_recv().ok() };
        }
        if let Some(batch) = collector.take() {
            return Some(batch);
        }
    }
}
