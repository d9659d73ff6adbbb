//! Limit of W2: as many threads as CPUs, each doing sled get + decode + `HashMap` insert for its share of the ids.

use std::{collections::HashMap, sync::Arc, thread};

use super::super::{Lap, Ledger, ledger_from};

/// Reads every id once, and counts what it decoded.
pub(crate) fn read_all(db: &sled::Db, ids: &Arc<[String]>, threads: usize) -> Lap {
    Lap::of(|| {
        let readers = (0..threads).map(|me| {
            let (db, ids) = (db.clone(), ids.clone());
            thread::spawn(move || {
                let mut states: HashMap<String, Ledger, ahash::RandomState> = HashMap::default();
                for id in ids.iter().skip(me).step_by(threads) {
                    let bytes = db.get(id).expect("sled reads").expect("every id is stored");
                    states.insert(id.clone(), ledger_from(&bytes));
                }
                states.values().map(|state| state.count).sum::<u64>()
            })
        });
        let readers: Vec<_> = readers.collect();
        readers.into_iter().map(|reader| reader.join().expect("a reader does not panic")).sum()
    })
}
