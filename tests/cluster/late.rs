//! Messages that are late, and replicas that are behind: what an owner must not fall for.

use std::{
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
        mpsc::channel,
    },
    thread,
    time::Duration,
};

use service_twin::store::{Error, Load, Slot, Store as _};

use crate::{
    servers::{Servers, until},
    world::{Node, address, keys_of},
};

/// Between a node and its server: what the node says can be kept back, and said later.
struct Lane {
    address: String,
    wires: Arc<Mutex<Vec<Wire>>>,
    is_held: Arc<AtomicBool>,
}

struct Wire {
    node: TcpStream,
    server: TcpStream,
    held: Arc<Mutex<Vec<u8>>>,
}

impl Lane {
    fn to(server: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("nats://{}", listener.local_addr().unwrap());
        let lane = Self { address, wires: Arc::default(), is_held: Arc::default() };
        let (wires, is_held) = (Arc::clone(&lane.wires), Arc::clone(&lane.is_held));
        let server = server.trim_start_matches("nats://").to_owned();
        thread::spawn(move || {
            for node in listener.incoming().map_while(Result::ok) {
                let Ok(server) = TcpStream::connect(&server) else { continue };
                let held = Arc::new(Mutex::default());
                let wire = || (node.try_clone().unwrap(), server.try_clone().unwrap());
                let ((from, to), (answers_to, answers), is_held) = (wire(), wire(), Arc::clone(&is_held));
                let kept = Arc::clone(&held);
                thread::spawn(move || carry(from, to, Some((&is_held, &kept))));
                thread::spawn(move || carry(answers, answers_to, None));
                wires.lock().unwrap().push(Wire { node, server, held });
            }
        });
        lane
    }

    fn hold(&self) {
        self.is_held.store(true, Ordering::SeqCst);
    }

    /// Breaks the wires to the node, not those to the server; new ones carry everything.
    fn break_off(&self) {
        for wire in &*self.wires.lock().unwrap() {
            wire.node.shutdown(std::net::Shutdown::Both).ok();
        }
        self.is_held.store(false, Ordering::SeqCst);
    }

    /// The server hears at last what was said; how many bytes.
    fn let_go(&self) -> usize {
        let mut said = 0;
        for wire in &mut *self.wires.lock().unwrap() {
            let held = std::mem::take(&mut *wire.held.lock().unwrap());
            wire.server.write_all(&held).unwrap();
            said += held.len();
        }
        said
    }
}

/// Carries bytes until one end closes; keeps them back while that is wanted.
fn carry(mut from: TcpStream, mut to: TcpStream, hold: Option<(&AtomicBool, &Mutex<Vec<u8>>)>) {
    let mut bytes = [0; 16 * 1024];
    loop {
        let count = from.read(&mut bytes).unwrap_or(0);
        if count == 0 {
            return;
        }
        match hold {
            Some((is_held, held)) if is_held.load(Ordering::SeqCst) => {
                held.lock().unwrap().extend_from_slice(&bytes[..count]);
            }
            Some(_) | None if to.write_all(&bytes[..count]).is_err() => return,
            Some(_) | None => {}
        }
    }
}

#[test]
fn what_had_no_answer_does_not_land_on_top_of_what_was_acknowledged_later() {
    let servers = Servers::one();
    let mut config = servers.config("tw", "a");
    let lane = Lane::to(&config.servers[0]);
    config.servers = vec![lane.address.clone()];
    config.timeout = Duration::from_secs(2);
    let node = Node::open(config);
    let slot = Slot(77);
    let keys = keys_of(slot, 2);
    let mut epoch = node.claim(slot);
    node.commit(node.core(&keys[0], epoch, 1, "1 first")).unwrap();

    lane.hold();
    let unknown = node.commit(node.core(&keys[0], epoch, 2, "2 late"));
    assert!(matches!(unknown, Err(Error::Unknown(_))), "{unknown:?}");
    lane.break_off();
    until("a second commit", || match node.commit(node.core(&keys[0], epoch, 2, "2 again")) {
        Ok(()) => true,
        Err(Error::Unavailable(_)) => {
            epoch = node.claim(slot);
            assert_eq!(node.read(&keys[0], epoch).as_deref(), Some("1 first"));
            false
        }
        // Sent before the node was connected again, by a store that does not ask for a claim.
        Err(Error::Unknown(_)) => false,
        Err(error) => panic!("{error}"),
    });
    assert!(lane.let_go() > 100, "the late commit was kept back");
    // The server takes what is said to a stream in order: this comes after it.
    node.commit(node.core(&keys[1], epoch, 1, "1 other")).unwrap();
    assert_eq!(
        node.read(&keys[0], epoch).as_deref(),
        Some("2 again"),
        "acknowledged, and overwritten by what was late"
    );
}

#[test]
fn who_takes_a_slot_over_reads_what_was_acknowledged_whichever_replica_answers() {
    let servers = Servers::three();
    let mut config = servers.config("tw", "a");
    config.streams = 1;
    drop(Node::open(config.clone()));
    // One replica stands still while the slot is written and claimed; nobody is connected to it, but it is asked as well.
    let behind = (servers.leader("tw_TW00") + 1) % 3;
    config.servers.remove(behind);
    let a = Node::open(config.clone());
    config.node = "b".into();
    let b = Node::open(config);
    let slot = Slot(5);
    let keys = keys_of(slot, 32);
    for round in 1..=8 {
        let (writer, reader) = if round % 2 == 0 { (&b, &a) } else { (&a, &b) };
        let epoch = writer.claim(slot);
        servers.stop(behind, true);
        for key in &keys {
            writer.hand_in(writer.core(key, epoch, round, &round.to_string()));
        }
        for _ in &keys {
            writer.next().result.unwrap();
        }
        let epoch = reader.claim(slot);
        let (send, read) = channel();
        for key in &keys {
            let load = Load { address: address(key), core: true, pages: Vec::new(), prefix: None, under: Some(epoch) };
            let send = send.clone();
            reader.store.load(load, Box::new(move |loaded| drop(send.send(loaded))));
        }
        // Those that it is asked wait in front of it.
        thread::park_timeout(Duration::from_millis(50));
        servers.stop(behind, false);
        for _ in &keys {
            let loaded = read.recv_timeout(Duration::from_secs(60)).expect("the store answers in time").unwrap();
            let core = loaded.core.map(|core| String::from_utf8(core).unwrap());
            assert_eq!(core, Some(round.to_string()), "acknowledged to the owner before");
        }
    }
}
