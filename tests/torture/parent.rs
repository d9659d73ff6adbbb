//! Who starts, kills and compares.

use std::{
    collections::{BTreeMap, HashMap},
    io::{BufRead, BufReader},
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Duration,
};

use rand::{Rng, SeedableRng, rngs::StdRng};
use service_twin::{runtime::Runtime, store::Level};
use tempfile::TempDir;

use crate::{
    FSYNC_EVERY,
    account::{Leaf, Read, ear},
    child::{DIRECTORY, FSYNC, LEVEL, RETRIES, TASK, open},
};

/// One command, as the parent heard of it.
struct Sent {
    twin: String,
    line: String,
    /// Place and revision, once acknowledged.
    place: Option<(u32, u64)>,
}

/// What the dead processes said, and the directory they left.
pub(crate) struct Parent {
    random: StdRng,
    home: TempDir,
    sent: BTreeMap<u32, Sent>,
    acknowledged: u64,
    lines: u64,
}

impl Parent {
    pub(crate) fn new(seed: u64) -> Self {
        let home = tempfile::tempdir().unwrap();
        Self { random: StdRng::seed_from_u64(seed), home, sent: BTreeMap::new(), acknowledged: 0, lines: 0 }
    }

    fn directory(&self) -> PathBuf {
        self.home.path().join("store")
    }

    /// Starts a process; `turn` says at which level its store runs.
    fn start(&self, task: &str, turn: u64) -> Child {
        let level = if turn % FSYNC_EVERY == FSYNC_EVERY - 1 { FSYNC } else { "flushed" };
        Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child", "--ignored", "--nocapture", "--test-threads", "1"])
            .env(DIRECTORY, self.directory())
            .env(TASK, task)
            .env(LEVEL, level)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap()
    }

    /// One life under load, killed after some acknowledgements.
    pub(crate) fn life(&mut self, life: u64) {
        let open = self.sent.values().filter(|sent| sent.place.is_none());
        let retries: Vec<_> = open.map(|sent| sent.line.as_str()).collect();
        std::fs::write(self.home.path().join(RETRIES), retries.join("\n")).unwrap();
        let mut child = self.start(&format!("work {life}"), life);
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let enough = self.lines + self.random.random_range(1..1_500_u64);
        let (mut line, mut killed) = (String::new(), false);
        // After the kill the pipe still holds what the process said; a line cut short was not said.
        while output.read_line(&mut line).unwrap() > 0 {
            if line.ends_with('\n') {
                self.hear(line.trim_end());
            }
            line.clear();
            if self.lines >= enough && !killed {
                child.kill().unwrap();
                killed = true;
            }
        }
        child.wait().unwrap();
        assert!(killed, "life {life}: the process ended by itself");
    }

    fn hear(&mut self, line: &str) {
        assert!(!line.contains("WRONG"), "{line}");
        let words: Vec<_> = line.split('\t').collect();
        let id = |words: &[&str]| words[2].parse::<u32>().unwrap();
        match words[0] {
            "send" => {
                let (twin, line) = (words[1].to_owned(), words[1..].join("\t"));
                self.sent.insert(id(&words), Sent { twin, line, place: None });
            }
            "ack" => {
                let place = (words[3].parse().unwrap(), words[4].parse().unwrap());
                let sent = self.sent.get_mut(&id(&words)).unwrap();
                assert!(sent.place.is_none_or(|before| before == place), "{line}: it was {:?}", sent.place);
                self.acknowledged += u64::from(sent.place.replace(place).is_none());
                self.lines += 1;
            }
            // Not applied by this attempt; whether an earlier one was, it cannot say.
            "old" => self.lines += 1,
            "not" => {
                assert_eq!(words[3], "NotApplied", "{line}");
                self.lines += 1;
            }
            _ => {}
        }
    }

    /// Compares all that was said with all that is there.
    pub(crate) fn compare(&mut self) {
        let tokio = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let runtime = open(&self.directory(), Level::Flushed, None);
        tokio.block_on(async {
            let mut twins: BTreeMap<&str, Vec<(&u32, &Sent)>> = BTreeMap::new();
            for sent in &self.sent {
                twins.entry(&sent.1.twin).or_default().push(sent);
            }
            for (twin, sent) in twins {
                compare(&runtime, twin, &sent).await;
            }
            assert_eq!(runtime.drain(Duration::from_secs(20)).await.unsettled, 0);
        });
    }

    /// Whether the run was worth its name.
    pub(crate) fn enough(&self, kills: u64) {
        assert!(self.acknowledged > kills * 20, "{} commands in {kills} lives", self.acknowledged);
        println!("{kills} kills, {} commands sent, {} acknowledged", self.sent.len(), self.acknowledged);
    }

    /// A process that dies when a promise is durable and not yet delivered; the next one is called by nobody.
    pub(crate) fn die_between(&mut self, case: u64) {
        let twin = format!("case-{case}");
        let died = self.start(&format!("die {twin}"), case).wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&died.stdout);
        assert!(!died.status.success() && !said.contains("WRONG"), "case {case}: {said}");
        let waited = self.start(&format!("wait {twin}"), case).wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&waited.stdout);
        assert!(waited.status.success() && said.contains("arrived"), "case {case}: {said}");
    }
}

async fn compare(runtime: &Runtime, twin: &str, sent: &[(&u32, &Sent)]) {
    let (account, revision) = runtime.twin(twin).ask(Read).await.unwrap();
    let entered = if twin.starts_with("pages") {
        let entered = leaves(runtime, twin, "at/").await;
        let last = leaves(runtime, twin, "last").await;
        assert_eq!(entered.last(), last.last(), "{twin}: pages of one commit belong together");
        entered
    } else {
        account.done
    };
    assert_eq!(u32::try_from(entered.len()), Ok(account.count), "{twin}: record and pages agree");
    assert_eq!(revision, u64::from(account.count), "{twin}: one change, one revision");
    let mut places = HashMap::new();
    for (place, id) in entered.iter().enumerate() {
        let before = places.insert(*id, place);
        assert_eq!(before, None, "{twin}: command {id} was entered twice");
    }
    for (id, sent) in sent {
        let found = places.remove(*id);
        if let Some((place, _)) = sent.place {
            assert_eq!(found, usize::try_from(place).ok(), "{twin}: command {id} was acknowledged");
        }
    }
    assert!(places.is_empty(), "{twin}: nobody sent {places:?}");
    // What it promised has been delivered, or is delivered now: once each.
    let ear = ear(twin);
    let mut heard = Vec::new();
    for _ in 0..2_000 {
        heard = leaves(runtime, &ear, "heard/").await;
        if heard.len() >= entered.len() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    heard.sort_unstable();
    let mut entered = entered;
    entered.sort_unstable();
    assert_eq!(heard, entered, "{twin}: what is told arrives once");
}

/// Every page under a prefix, in order.
async fn leaves(runtime: &Runtime, twin: &str, prefix: &'static str) -> Vec<u32> {
    let (mut all, mut after) = (Vec::new(), None);
    loop {
        let part = runtime.twin(twin).ask(Leaf { prefix, after: after.clone() }).await.unwrap();
        let Some((last, _)) = part.last() else { return all };
        after = Some(last.clone());
        all.extend(part.iter().map(|(_, id)| *id));
    }
}
