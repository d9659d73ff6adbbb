//! Three machines on one wire: network namespaces on a bridge, whose packets can be dropped and held up.

use std::{
    io::Write as _,
    process::{Command, Stdio},
};

/// Ports of a machine: of the server's clients, of its routes, of its monitor, of the node's clients, of the node's links.
pub(crate) const SERVER: u16 = 4222;
pub(crate) const ROUTES: u16 = 6222;
pub(crate) const MONITOR: u16 = 8222;
pub(crate) const HTTP: u16 = 7070;
pub(crate) const LINKS: u16 = 7071;

/// The namespaces, as long as this lives. The tests themselves are at the bridge and reach every machine.
pub(crate) struct Network {
    bridge: String,
    subnet: String,
}

/// Which packets of a machine are dropped.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Cut {
    /// What its node says to servers, and hears from them.
    NodeFromServers,
    /// Links between its node and the others.
    NodeFromNodes,
    /// Routes between its server and the others.
    ServerFromServers,
    /// Everything between it and the other machines.
    Off,
    /// What it says to the other machines.
    Mute,
    /// What the other machines say to it.
    Deaf,
    /// One packet in five, both ways.
    Lossy,
}

/// Runs a program that has to succeed.
fn run(program: &str, arguments: &str) {
    let output = Command::new(program).args(arguments.split_whitespace()).output();
    let output = output.unwrap_or_else(|error| panic!("{program}: {error}; ./scripts/test cluster installs it"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments}: {said} (the fleet needs root: ./scripts/test cluster)");
}

impl Network {
    pub(crate) fn new() -> Self {
        let id = std::process::id();
        let network = Self { bridge: format!("tb{id}"), subnet: format!("10.77.{}", id % 250) };
        let (bridge, subnet) = (&network.bridge, &network.subnet);
        run("ip", &format!("link add {bridge} type bridge"));
        run("ip", &format!("addr add {subnet}.254/24 dev {bridge}"));
        run("ip", &format!("link set {bridge} up"));
        for at in 0..3 {
            let (machine, end) = (network.machine(at), network.end(at));
            run("ip", &format!("netns add {machine}"));
            run("ip", &format!("link add {end} type veth peer name eth0 netns {machine}"));
            run("ip", &format!("link set {end} master {bridge} up"));
            run("ip", &format!("-n {machine} addr add {}/24 dev eth0", network.address(at)));
            run("ip", &format!("-n {machine} link set eth0 up"));
            run("ip", &format!("-n {machine} link set lo up"));
        }
        network
    }

    pub(crate) fn address(&self, at: usize) -> String {
        format!("{}.{}", self.subnet, at + 1)
    }

    fn machine(&self, at: usize) -> String {
        format!("{}-{}", self.bridge, at + 1)
    }

    /// The end of a machine's wire that is at the bridge.
    fn end(&self, at: usize) -> String {
        format!("{}v{}", self.bridge, at + 1)
    }

    /// A program that runs on a machine.
    pub(crate) fn command(&self, at: usize, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.machine(at)]).arg(program);
        command
    }

    pub(crate) fn cut(&self, at: usize, cut: Cut) {
        let others: Vec<String> = (0..3).filter(|other| *other != at).map(|other| self.address(other)).collect();
        let others = others.join(", ");
        let both = |port: u16| format!("tcp dport {port} drop; tcp sport {port} drop;");
        let (from, to) = (format!("ip saddr {{ {others} }}"), format!("ip daddr {{ {others} }}"));
        let (inward, outward) = match cut {
            Cut::NodeFromServers => (format!("tcp sport {SERVER} drop;"), format!("tcp dport {SERVER} drop;")),
            Cut::NodeFromNodes => (both(LINKS), both(LINKS)),
            Cut::ServerFromServers => (both(ROUTES), both(ROUTES)),
            Cut::Off => (format!("{from} drop;"), format!("{to} drop;")),
            Cut::Mute => (String::new(), format!("{to} drop;")),
            Cut::Deaf => (format!("{from} drop;"), String::new()),
            Cut::Lossy => {
                let some = "numgen random mod 100 < 20 drop;";
                (format!("{from} {some}"), format!("{to} {some}"))
            }
        };
        let rules = format!(
            "table inet cut {{\n chain in {{ type filter hook input priority 0; {inward} }}\n \
             chain out {{ type filter hook output priority 0; {outward} }}\n}}\n"
        );
        let mut nft = self.command(at, "nft").args(["-f", "-"]).stdin(Stdio::piped()).spawn().unwrap();
        nft.stdin.take().unwrap().write_all(rules.as_bytes()).unwrap();
        assert!(nft.wait().unwrap().success(), "nft refuses\n{rules}");
    }

    pub(crate) fn heal(&self, at: usize) {
        let healed = self.command(at, "nft").args(["delete", "table", "inet", "cut"]).status().unwrap();
        assert!(healed.success(), "nft does not take back what it did");
    }

    /// Pulls the plug of a machine, or puts it back.
    pub(crate) fn plug(&self, at: usize, is_in: bool) {
        run("ip", &format!("link set {} {}", self.end(at), if is_in { "up" } else { "down" }));
    }

    /// Makes what a machine says to anybody wait in a queue of up to 300 ms.
    pub(crate) fn slow(&self, at: usize, is_slow: bool) {
        let what = if is_slow { "add" } else { "del" };
        let how = if is_slow { "tbf rate 2mbit burst 8kb latency 300ms" } else { "" };
        run("ip", &format!("netns exec {} tc qdisc {what} dev eth0 root {how}", self.machine(at)));
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        let ip = |arguments: &[&str]| Command::new("ip").args(arguments).status().ok();
        for at in 0..3 {
            ip(&["netns", "del", &self.machine(at)]);
        }
        ip(&["link", "del", &self.bridge]);
    }
}
