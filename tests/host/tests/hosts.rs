//! Three hosts, one story; and what must not come with it.

use std::{path::Path, sync::Arc};

use actix::{Actor, Context, Handler, Message, ResponseFuture, System};
use service_twin::{
    runtime::Runtime,
    store::{
        Store,
        memory::MemoryStore,
        sled::{Options, SledStore},
    },
    twin::Failure,
};
use service_twin_host::{Deposit, Hello, epilogue, start, story};

fn memory() -> Arc<dyn Store> {
    Arc::new(MemoryStore::new())
}

fn sled(directory: &Path) -> Arc<dyn Store> {
    Arc::new(SledStore::open(directory, Options::default()).expect("the directory is ours"))
}

/// In memory and on disk, each with a restart in between.
async fn whole() -> Result<(), Failure> {
    let store = memory();
    story(&start(Arc::clone(&store)).expect("a start in memory")).await?;
    epilogue(&start(store).expect("a second start in memory")).await?;
    let directory = tempfile::tempdir().expect("a folder for the test");
    story(&start(sled(directory.path())).expect("a start on disk")).await?;
    epilogue(&start(sled(directory.path())).expect("a second start on disk")).await
}

#[tokio::test(flavor = "current_thread")]
async fn a_host_on_one_thread_embeds_the_runtime() {
    whole().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_on_many_threads_embeds_the_runtime() {
    whole().await.unwrap();
    let runtime = start(memory()).unwrap();
    let calls = (0..64).map(|_| {
        let runtime = runtime.clone();
        tokio::spawn(async move { runtime.twin("shared").ask(Deposit(1)).await })
    });
    for call in calls.collect::<Vec<_>>() {
        call.await.unwrap().unwrap();
    }
    assert_eq!(runtime.twin("shared").ask(Deposit(0)).await, Ok(64));
}

/// An actor of the host's own, on the host's own `System`.
struct Clerk(Runtime);

impl Actor for Clerk {
    type Context = Context<Self>;
}

struct Greet(&'static str);

impl Message for Greet {
    type Result = Result<u64, Failure>;
}

impl Handler<Greet> for Clerk {
    type Result = ResponseFuture<Result<u64, Failure>>;

    fn handle(&mut self, Greet(whom): Greet, _: &mut Self::Context) -> Self::Result {
        let runtime = self.0.clone();
        Box::pin(async move { runtime.twin(whom).ask(Hello).await })
    }
}

#[test]
fn a_host_with_an_actix_system_of_its_own_embeds_the_runtime() {
    System::new().block_on(async {
        whole().await.unwrap();
        let clerk = Clerk(start(memory()).unwrap()).start();
        assert_eq!(clerk.send(Greet("ada")).await.unwrap(), Ok(1));
        assert_eq!(clerk.send(Greet("ada")).await.unwrap(), Ok(2));
    });
}

#[test]
fn no_server_comes_with_the_library() {
    let lock = include_str!("../Cargo.lock");
    let packages: Vec<&str> = lock.lines().filter_map(|line| line.strip_prefix("name = ")).collect();
    assert!(packages.contains(&"\"service-twin\""), "the lock file is read as meant");
    for unwanted in ["axum", "tonic", "hyper", "prost", "opentelemetry-proto", "clap", "reqwest", "mimalloc"] {
        assert!(!packages.contains(&format!("\"{unwanted}\"").as_str()), "'{unwanted}' came with the library");
    }
}
