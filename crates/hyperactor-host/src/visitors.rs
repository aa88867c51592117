//! Who is reached over a connection that it dialled itself: guests, and hosts that stand behind this one. An entry goes with
//! its session, or when its session has been without a connection for too long.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use hyperactor_mailbox::{BoxFuture, FlushError, Hop, MailboxSender, RouteKind};
use hyperactor_refs::{ChannelAddr, Incarnation, ProcId};
use hyperactor_router::{MailboxClient, Status};
use parking_lot::RwLock;
use tokio::sync::watch;

use crate::agent::HostRefusal;
use crate::door::{Claim, Floor};
use crate::limits;

/// One session of one of the host's frontends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct SessionKey {
    /// The number of the frontend.
    pub(crate) frontend: usize,
    /// The number of the session there.
    pub(crate) session: u64,
}

/// The guests of a host and the hosts behind it. A clone is another handle of the same table.
///
/// # Bounds
/// At most [`limits::GUESTS_MAX`] guests and [`limits::ATTACHED_MAX`] hosts.
#[derive(Clone)]
pub(crate) struct Visitors(Arc<Shared>);

struct Shared {
    /// How many there are, for those who only want to know that there are none.
    count: AtomicUsize,
    book: RwLock<Book>,
    /// Counts the changes of the addresses behind this host.
    changes: watch::Sender<u64>,
}

#[derive(Default)]
struct Book {
    guests: HashMap<Box<str>, Guest>,
    attached: Vec<Attached>,
}

/// A guest, as it is reached.
#[derive(Clone)]
pub(crate) struct Guest {
    key: SessionKey,
    /// Its id, spelt as it spells it itself.
    pub(crate) proc_id: Arc<ProcId>,
    pub(crate) back: MailboxClient,
}

/// A host behind this one.
#[derive(Clone)]
pub(crate) struct Attached {
    key: SessionKey,
    pub(crate) incarnation: Incarnation,
    pub(crate) addrs: Vec<ChannelAddr>,
    pub(crate) back: MailboxClient,
}

impl Attached {
    fn has(&self, addr: &ChannelAddr) -> bool {
        self.addrs.iter().any(|own| addr.is_local_to(own))
    }

    pub(crate) fn is_connected(&self) -> bool {
        *self.back.status().borrow() == Status::Connected
    }
}

impl Visitors {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Shared {
            count: AtomicUsize::new(0),
            book: RwLock::default(),
            changes: watch::Sender::new(0),
        }))
    }

    fn is_empty(&self) -> bool {
        self.0.count.load(Ordering::Acquire) == 0
    }

    fn recount(&self, book: &Book) {
        let count = book.guests.len() + book.attached.len();
        self.0.count.store(count, Ordering::Release);
    }

    /// A session speaks as this guest for the first time. Refused in words when another session does already, or when there
    /// are too many.
    pub(crate) fn enter(
        &self,
        key: SessionKey,
        proc_id: &Arc<ProcId>,
        back: &MailboxClient,
    ) -> Result<(), String> {
        let guest = Guest {
            key,
            proc_id: Arc::clone(proc_id),
            back: back
                .clone()
                .with_addr(proc_id.addr().clone())
                .with_hop(hop(proc_id.to_string())),
        };
        {
            let mut book = self.0.book.write();
            let present = book.guests.get(proc_id.name());
            if present.is_some_and(|present| present.key != key) {
                return Err(format!("`{proc_id}` is the guest of another connection"));
            }
            if present.is_none() && book.guests.len() >= limits::GUESTS_MAX {
                let max = limits::GUESTS_MAX;
                return Err(format!("the host has {max} guests, which is its limit"));
            }
            book.guests.insert(proc_id.name().into(), guest);
            self.recount(&book);
        }
        tracing::debug!(target: "hyperactor::host", event = "guest.joined", guest = %proc_id, "a guest has joined");
        self.dismiss_when_absent(key, back);
        Ok(())
    }

    /// A session says that it leads to a host, or says anew which addresses that has. `above` are this host and those that it
    /// stands behind.
    pub(crate) fn attach(
        &self,
        key: SessionKey,
        claim: Claim,
        back: &MailboxClient,
        above: &[Floor],
    ) -> Result<(), HostRefusal> {
        check(&claim, above)?;
        let name = claim.addrs[0].to_string();
        let (is_new, former) = {
            let mut book = self.0.book.write();
            let overlaps = |other: &Attached| claim.addrs.iter().any(|addr| other.has(addr));
            let others = book.attached.iter().filter(|other| other.key != key);
            // A host that has come back, in the same life or another, before its former session was given up.
            let is_over =
                |other: &Attached| other.incarnation == claim.incarnation || !other.is_connected();
            if let Some(other) = others
                .filter(|other| overlaps(other))
                .find(|other| !is_over(other))
            {
                let text = format!("{} leads to another host behind this one", other.addrs[0]);
                return Err(HostRefusal::new("address-taken", text));
            }
            let former: Vec<Attached> = book
                .attached
                .extract_if(.., |other| overlaps(other) || other.key == key)
                .collect();
            if book.attached.len() >= limits::ATTACHED_MAX {
                let max = limits::ATTACHED_MAX;
                let text = format!("{max} hosts are behind this one, which is its limit");
                book.attached.extend(former);
                return Err(HostRefusal::new("too-many-attached", text));
            }
            let is_known = former
                .iter()
                .any(|former| former.key == key && former.addrs == claim.addrs);
            book.attached.push(Attached {
                key,
                incarnation: claim.incarnation,
                addrs: claim.addrs,
                back: back.clone().with_hop(hop(name.clone())),
            });
            self.recount(&book);
            (!is_known, former)
        };
        let is_first = former.iter().all(|former| former.key != key);
        for former in former.into_iter().filter(|former| former.key != key) {
            former.back.close();
        }
        if is_new {
            self.0.changes.send_modify(|changes| *changes += 1);
            tracing::info!(target: "hyperactor::host", event = "host.attached", host = name, "a host stands behind this one");
        }
        if is_first {
            self.dismiss_when_absent(key, back);
        }
        Ok(())
    }

    /// A session has ended.
    pub(crate) fn leave(&self, key: SessionKey) {
        if self.is_empty() {
            return;
        }
        // Dropped without the lock: each may own the last handle of its connection.
        let (guests, hosts): (Vec<Guest>, Vec<Attached>) = {
            let mut book = self.0.book.write();
            let guests = book
                .guests
                .extract_if(|_, guest| guest.key == key)
                .map(|(_, guest)| guest)
                .collect();
            let is_its = |attached: &mut Attached| attached.key == key;
            let hosts = book.attached.extract_if(.., is_its).collect();
            self.recount(&book);
            (guests, hosts)
        };
        for guest in guests {
            tracing::debug!(target: "hyperactor::host", event = "guest.left", guest = %guest.proc_id, "a guest has left");
        }
        for host in &hosts {
            tracing::info!(target: "hyperactor::host", event = "host.detached", host = %host.addrs[0], "a host stands behind this one no more");
        }
        if !hosts.is_empty() {
            self.0.changes.send_modify(|changes| *changes += 1);
        }
    }

    /// Takes a session out that is without a connection for too long.
    fn dismiss_when_absent(&self, key: SessionKey, back: &MailboxClient) {
        let visitors = Arc::downgrade(&self.0);
        let (back, mut status) = (back.clone(), back.status());
        tokio::spawn(async move {
            while reaches(&mut status, false).await {
                let back_again = reaches(&mut status, true);
                match tokio::time::timeout(limits::VISITOR_ABSENT_MAX, back_again).await {
                    Ok(true) => {}
                    Ok(false) => break,
                    Err(_) => {
                        back.close();
                        break;
                    }
                }
            }
            // Also where the session ended before it was entered here.
            if let Some(visitors) = visitors.upgrade() {
                Self(visitors).leave(key);
            }
        });
    }

    /// The guest of a name.
    pub(crate) fn guest(&self, name: &str) -> Option<Guest> {
        if self.is_empty() {
            return None;
        }
        self.0.book.read().guests.get(name).cloned()
    }

    /// The way to a host behind this one.
    pub(crate) fn way(&self, addr: &ChannelAddr) -> Option<MailboxClient> {
        if self.is_empty() {
            return None;
        }
        let book = self.0.book.read();
        let attached = book.attached.iter().find(|attached| attached.has(addr))?;
        Some(attached.back.clone())
    }

    /// Whether a session that leads to a host may send in the name of a proc there.
    pub(crate) fn speaks_for(&self, key: SessionKey, addr: &ChannelAddr) -> bool {
        let book = self.0.book.read();
        let mut its = book.attached.iter().filter(|attached| attached.key == key);
        its.any(|attached| attached.has(addr))
    }

    /// The addresses of all hosts behind this one.
    pub(crate) fn addrs(&self) -> Vec<ChannelAddr> {
        let book = self.0.book.read();
        let addrs = book.attached.iter().flat_map(|attached| &attached.addrs);
        addrs.cloned().collect()
    }

    /// Tells when those change.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.0.changes.subscribe()
    }

    pub(crate) fn attached(&self) -> Vec<Attached> {
        self.0.book.read().attached.clone()
    }

    pub(crate) fn guests(&self) -> Vec<Arc<ProcId>> {
        let book = self.0.book.read();
        let mut guests: Vec<_> = book
            .guests
            .values()
            .map(|guest| Arc::clone(&guest.proc_id))
            .collect();
        guests.sort_unstable();
        guests
    }

    /// Resolves when everything that went to them before has an outcome.
    pub(crate) fn flush(&self) -> BoxFuture<'static, Result<(), FlushError>> {
        let clients: Vec<MailboxClient> = {
            let book = self.0.book.read();
            let guests = book.guests.values().map(|guest| guest.back.clone());
            let hosts = book.attached.iter().map(|attached| attached.back.clone());
            guests.chain(hosts).collect()
        };
        Box::pin(async move {
            let mut result = Ok(());
            for client in clients {
                result = result.and(client.flush().await);
            }
            result
        })
    }
}

/// Waits until a channel is connected, or is not. `false` when it has ended.
pub(crate) async fn reaches(status: &mut watch::Receiver<Status>, connected: bool) -> bool {
    let has_ended = |status: &Status| matches!(status, Status::Closed(_));
    let reached = status
        .wait_for(|status| has_ended(status) || (*status == Status::Connected) == connected)
        .await;
    reached.is_ok_and(|status| !has_ended(&status))
}

fn hop(at: String) -> Hop {
    Hop {
        at,
        route: RouteKind::Remote,
    }
}

/// What is wrong with a claim whoever else is there: it is empty or too large, or it would close a circle.
fn check(claim: &Claim, above: &[Floor]) -> Result<(), HostRefusal> {
    if claim.addrs.is_empty() || claim.addrs.len() > limits::CLAIM_ADDRS_MAX {
        let text = format!(
            "a host behind another has 1 to {} addresses with those behind it, and this one claims {}",
            limits::CLAIM_ADDRS_MAX,
            claim.addrs.len()
        );
        return Err(HostRefusal::new("bad-claim", text));
    }
    if above.len() >= limits::FLOORS_MAX {
        let text = format!(
            "{} hosts stand in a row already, which is the limit",
            above.len()
        );
        return Err(HostRefusal::new("too-deep", text));
    }
    for (height, floor) in above.iter().enumerate() {
        let taken = claim.addrs.iter().find(|addr| floor.addrs.contains(addr));
        let name = floor.addrs.canonical();
        let is_same = floor.incarnation == claim.incarnation;
        let refusal = match (height, is_same, taken) {
            (_, false, None) => continue,
            (0, true, _) => (
                "itself",
                format!("{name} is the host itself: it cannot stand behind itself"),
            ),
            (0, false, Some(addr)) => (
                "address-taken",
                format!("{addr} is an address of the host {name}"),
            ),
            (_, _, _) => (
                "circle",
                format!(
                    "{name} stands before this host already: they would stand behind each other in a circle"
                ),
            ),
        };
        return Err(HostRefusal::new(refusal.0, refusal.1));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addrs::HostAddrs;

    fn floor(number: u64) -> Floor {
        Floor {
            incarnation: Incarnation::new(number),
            addrs: HostAddrs::new(ChannelAddr::local(number).unwrap()),
        }
    }

    fn refusal(life: u64, addrs: &[u64], above: &[Floor]) -> Option<String> {
        let claim = Claim {
            incarnation: Incarnation::new(life),
            addrs: addrs
                .iter()
                .map(|n| ChannelAddr::local(*n).unwrap())
                .collect(),
        };
        check(&claim, above).err().map(|refusal| refusal.code)
    }

    #[test]
    fn a_claim_is_checked_against_all_hosts_above() {
        let above: Vec<Floor> = (1..=3).map(floor).collect();
        assert_eq!(refusal(9, &[9, 10], &above), None);
        // By its life, whatever it calls itself, and by its name, whichever life it is.
        assert_eq!(refusal(1, &[9], &above).as_deref(), Some("itself"));
        assert_eq!(
            refusal(9, &[9, 1], &above).as_deref(),
            Some("address-taken")
        );
        for floor in 2..=3 {
            assert_eq!(refusal(floor, &[9], &above).as_deref(), Some("circle"));
            assert_eq!(refusal(9, &[9, floor], &above).as_deref(), Some("circle"));
        }
        assert_eq!(refusal(9, &[], &above).as_deref(), Some("bad-claim"));
        let many: Vec<u64> = (10..=10 + limits::CLAIM_ADDRS_MAX as u64).collect();
        assert_eq!(refusal(9, &many, &above).as_deref(), Some("bad-claim"));
        let tall = vec![floor(1); limits::FLOORS_MAX];
        assert_eq!(refusal(9, &[9], &tall).as_deref(), Some("too-deep"));
    }
}
