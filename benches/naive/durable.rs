//! W2, W4: one actix actor per id over sled. `started` loads the state; the handler encodes, inserts, and for W4 flushes
//! and calls fdatasync before it answers.

use std::{fs::File, sync::Arc};

use actix::{Actor, Addr, Context, Handler, Message};
use dashmap::DashMap;

use super::super::{Client, Ledger, Pick, ledger_from, ledger_to};

struct Entity {
    id: String,
    disk: Disk,
    state: Ledger,
}

/// Where states lie, and how far an update goes.
#[derive(Clone)]
pub(crate) struct Disk {
    pub(crate) db: sled::Db,
    /// Flush and sync in each handler, on this handle of the database file; `None` for not at all.
    pub(crate) sync: Option<Arc<File>>,
}

impl Actor for Entity {
    type Context = Context<Self>;
    fn started(&mut self, _: &mut Context<Self>) {
        if let Some(bytes) = self.disk.db.get(&self.id).expect("sled reads") {
            self.state = ledger_from(&bytes);
        }
    }
}

/// Adds; 0 only reads.
struct Add(u64);

impl Message for Add {
    type Result = u64;
}

impl Handler<Add> for Entity {
    type Result = u64;
    fn handle(&mut self, Add(by): Add, _: &mut Context<Self>) -> u64 {
        if by > 0 {
            self.state.count += by;
            self.disk.db.insert(&self.id, ledger_to(&self.state)).expect("sled writes");
            if let Some(file) = &self.disk.sync {
                self.disk.db.flush().expect("sled flushes");
                file.sync_data().expect("the disk syncs");
            }
        }
        self.state.count
    }
}

/// Addresses by id.
#[derive(Clone)]
pub(crate) struct Registry {
    actors: Arc<DashMap<String, Addr<Entity>, ahash::RandomState>>,
    ids: Arc<[String]>,
    pick: Pick,
    disk: Disk,
    by: u64,
}

impl Registry {
    /// Nobody is active yet; each call adds `by`.
    pub(crate) fn new(ids: &Arc<[String]>, pick: Pick, disk: &Disk, by: u64) -> Self {
        Self { actors: Arc::default(), ids: ids.clone(), pick, disk: disk.clone(), by }
    }
}

impl Client for Registry {
    async fn call(&mut self, at: u64) -> u64 {
        let id = &self.ids[self.pick.index(at, self.ids.len())];
        let found = self.actors.get(id).map(|found| found.clone());
        let start = || Entity { id: id.clone(), disk: self.disk.clone(), state: Ledger::default() }.start();
        let actor = match found {
            Some(actor) => actor,
            None => self.actors.entry(id.clone()).or_insert_with(start).clone(),
        };
        actor.send(Add(self.by)).await.expect("the actor runs")
    }
}
