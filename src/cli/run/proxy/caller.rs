//! Whose process is at the other end of a loopback connection.

use std::net::SocketAddr;

use tokio::sync::OnceCell;

use super::gate::Refusal;

/// The other end of one connection; its user is looked up once, when somebody asks.
pub(super) struct Caller {
    theirs: SocketAddr,
    ours: SocketAddr,
    judged: OnceCell<Result<(), Refusal>>,
}

impl Caller {
    /// Nothing is looked up yet.
    pub(super) fn new(theirs: SocketAddr, ours: SocketAddr) -> Self {
        Self { theirs, ours, judged: OnceCell::new() }
    }

    /// Refuses a process of another user, and one of which the user cannot be known.
    pub(super) async fn is_same_user(&self) -> Result<(), Refusal> {
        let (theirs, ours) = (self.theirs, self.ours);
        let look = || async move {
            // The tables may be long.
            let looked = tokio::task::spawn_blocking(move || user::is_same(theirs, ours)).await;
            match looked {
                Ok(Some(true)) => Ok(()),
                Ok(Some(false)) => Err(Refusal::AnotherUser),
                Ok(None) | Err(_) => Err(Refusal::UnknownUser),
            }
        };
        self.judged.get_or_init(look).await.clone()
    }
}

#[cfg(target_os = "linux")]
mod user {
    use std::{
        fmt::Write as _,
        fs::File,
        io::{BufRead, BufReader},
        net::{IpAddr, SocketAddr},
    };

    /// Whether the process that opened `theirs` towards `ours` is this user's; `None` if nobody knows.
    pub(super) fn is_same(theirs: SocketAddr, ours: SocketAddr) -> Option<bool> {
        let owner = ["/proc/net/tcp", "/proc/net/tcp6"].into_iter().find_map(|table| {
            let ends = [theirs, ours].map(|end| hexadecimal(end, table.ends_with('6')));
            let [Some(theirs), Some(ours)] = ends else { return None };
            owner(BufReader::new(File::open(table).ok()?), &theirs, &ours)
        })?;
        Some(owner == rustix::process::geteuid().as_raw())
    }

    /// The user in the row of a socket, if it is open (proc(5), `/proc/net/tcp`).
    fn owner(table: impl BufRead, theirs: &str, ours: &str) -> Option<u32> {
        // A socket that only waits for its time to be over belongs to nobody, and the table says 0.
        const TIME_WAIT: &str = "06";
        table.lines().map_while(Result::ok).find_map(|line| {
            let mut row = line.split_ascii_whitespace().skip(1);
            let is_it = row.next() == Some(theirs) && row.next() == Some(ours) && row.next() != Some(TIME_WAIT);
            if is_it { row.nth(3)?.parse().ok() } else { None }
        })
    }

    /// An address as these tables write it: words of 32 bits in the machine's order, then the port.
    fn hexadecimal(address: SocketAddr, as_v6: bool) -> Option<String> {
        let octets = match (address.ip(), as_v6) {
            (IpAddr::V4(ip), false) => ip.octets().to_vec(),
            (IpAddr::V4(ip), true) => ip.to_ipv6_mapped().octets().to_vec(),
            (IpAddr::V6(ip), true) => ip.octets().to_vec(),
            (IpAddr::V6(_), false) => return None,
        };
        let mut text = String::new();
        for word in octets.chunks_exact(4).filter_map(|word| <[u8; 4]>::try_from(word).ok()) {
            write!(text, "{:08X}", u32::from_ne_bytes(word)).ok()?;
        }
        write!(text, ":{:04X}", address.port()).ok()?;
        Some(text)
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        #[cfg(target_endian = "little")]
        fn a_socket_is_found_by_both_its_ends() {
            const TABLE: &str = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n   \
                0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1 0000 100\n   \
                1: 0100007F:C350 0100007F:1F90 01 00000000:00000000 00:00000000 00000000  1000        0 2 1 0000 20\n   \
                2: 0100007F:C351 0100007F:1F90 06 00000000:00000000 00:00000000 00000000     0        0 0 3 0000\n";
            let ours = hexadecimal("127.0.0.1:8080".parse().unwrap(), false).unwrap();
            let of =
                |theirs: &str| owner(TABLE.as_bytes(), &hexadecimal(theirs.parse().unwrap(), false).unwrap(), &ours);
            assert_eq!(of("127.0.0.1:50000"), Some(1000));
            assert_eq!(of("127.0.0.1:50001"), None, "it has ended");
            assert_eq!(of("127.0.0.1:50002"), None);
            let mapped = hexadecimal("127.0.0.1:80".parse().unwrap(), true).unwrap();
            assert_eq!(mapped, "0000000000000000FFFF00000100007F:0050");
        }

        #[test]
        fn our_own_process_is_the_same_user() {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            let ours = listener.local_addr().unwrap();
            let stream = std::net::TcpStream::connect(ours).unwrap();
            assert_eq!(is_same(stream.local_addr().unwrap(), ours), Some(true));
            assert_eq!(is_same("127.0.0.1:1".parse().unwrap(), ours), None);
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod user {
    use std::net::SocketAddr;

    /// Nobody knows here: a call needs its token.
    pub(super) fn is_same(_theirs: SocketAddr, _ours: SocketAddr) -> Option<bool> {
        None
    }
}
