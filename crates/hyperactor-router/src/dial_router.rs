//! References to addresses, dialled when needed: [`DialMailboxRouter`].

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use hyperactor_channel::DialOptions;
use hyperactor_mailbox::{
    BoxFuture, BoxedMailboxSender, FlushError, MailboxSender, MessageEnvelope, NotDelivered,
    Passage, ReturnHandle, limits as mailbox_limits,
};
use hyperactor_refs::{ChannelAddr, PortId, PrefixMap, ProcId, Reference};
use parking_lot::{RwLock, RwLockWriteGuard};
use tokio::runtime::Handle;

use crate::limits;
use crate::onward::Onward;
use crate::prefix_router::flush_all;
use crate::recent::Recent;
use crate::slot::Slot;

/// Sends each envelope to where its destination can be reached. A clone is another handle of the same router.
///
/// An envelope goes
///
/// 1. to what is bound to the longest prefix of its destination: an address, or a sender of this process;
/// 2. back at once, as [`NotDelivered::UnknownProc`], when the destination is below an address that this process
///    [owns](Self::own): whatever that address could answer, it has answered by having no such proc bound;
/// 3. to the [default sender](Self::with_default), where there is one;
/// 4. to the address within the destination's [`ProcId`].
///
/// There is one client for each address, dialled when the first envelope goes there. A client that has ended is dialled
/// anew by the next envelope; no failure is remembered. No lock is held while anything is dialled or posted.
///
/// # Bounds
/// At most [`limits::ADDRESSES`] addresses.
///
/// # Ordering
/// Envelopes of one thread for one destination arrive in the order posted, while what is bound to it stays the same.
#[derive(Clone)]
pub struct DialMailboxRouter(Arc<Inner>);

struct Inner {
    options: Arc<DialOptions>,
    table: RwLock<Table>,
    recent: Recent,
}

#[derive(Default)]
struct Table {
    book: PrefixMap<Route>,
    owned: Vec<ChannelAddr>,
    default: Option<BoxedMailboxSender>,
    /// The way to procs that are not in the book, as found by their ids.
    learned: PrefixMap<Arc<Slot>>,
    slots: HashMap<ChannelAddr, Arc<Slot>>,
}

#[derive(Clone)]
enum Route {
    Dial(Arc<Slot>),
    Sender(BoxedMailboxSender),
}

/// A binding was not made: the router has as many addresses as it may, and all are in use.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "cannot lead to {addr}: the router has {max} addresses in use, which is the limit; unbind some"
)]
pub struct BookFull {
    /// The address.
    pub addr: ChannelAddr,
    /// The limit.
    pub max: usize,
}

impl DialMailboxRouter {
    /// A router with an empty address book.
    #[must_use]
    pub fn new() -> Self {
        Self::with_options(DialOptions::default())
    }

    /// A router that dials with these options.
    #[must_use]
    pub fn with_options(options: DialOptions) -> Self {
        Self(Arc::new(Inner {
            options: Arc::new(options),
            table: RwLock::default(),
            recent: Recent::new(),
        }))
    }

    /// The same router, which sends what is neither bound nor below an owned address to `sender`, rather than to the
    /// address within its id.
    #[must_use]
    pub fn with_default(self, sender: impl MailboxSender) -> Self {
        let sender = sender.into_boxed();
        let mut table = self.0.change();
        table.default = Some(sender);
        table.learned.clear();
        drop(table);
        self
    }

    /// Enters where a prefix is reached, in place of what was entered for it.
    ///
    /// # Errors
    /// [`BookFull`] at the limit of addresses; nothing has changed then.
    pub fn bind(&self, reference: impl Into<Reference>, addr: ChannelAddr) -> Result<(), BookFull> {
        let former = {
            let mut table = self.0.change();
            let slot = table.slot(&addr, &self.0.options).ok_or(BookFull {
                addr,
                max: limits::ADDRESSES,
            })?;
            table.book.insert(reference.into(), Route::Dial(slot))
        };
        self.retire(former);
        Ok(())
    }

    /// Enters a sender of this process for a prefix, in place of what was entered for it.
    pub fn bind_sender(&self, reference: impl Into<Reference>, sender: impl MailboxSender) {
        let route = Route::Sender(sender.into_boxed());
        let former = self.0.change().book.insert(reference.into(), route);
        self.retire(former);
    }

    /// Takes out what was entered for a prefix, and says whether there was anything. What was posted still goes out.
    pub fn unbind(&self, reference: &Reference) -> bool {
        let former = self.0.change().book.remove(reference);
        let was_bound = former.is_some();
        self.retire(former);
        was_bound
    }

    /// The prefixes that are entered, in no order.
    #[must_use]
    pub fn bound(&self) -> Vec<Reference> {
        self.0
            .table
            .read()
            .book
            .iter()
            .map(|(reference, _)| reference)
            .collect()
    }

    /// Says that this process itself serves `addr`. A destination below it that is not bound is answered at once with
    /// the names that are, and never dialled: this process would only meet itself.
    pub fn own(&self, addr: ChannelAddr) {
        let mut table = self.0.change();
        table
            .learned
            .retain(|reference, _| !reference.proc_id().addr().is_local_to(&addr));
        if !table.owned.contains(&addr) {
            table.owned.push(addr);
        }
    }

    /// Gives up the clients that nobody is led to, once all that they carried has its outcome.
    fn retire(&self, former: Option<Route>) {
        let Some(Route::Dial(slot)) = former else {
            return;
        };
        let clients = slot.clients();
        if clients.is_empty() {
            return self.0.forget_unused(&slot);
        }
        let Ok(runtime) = Handle::try_current() else {
            // Without a runtime nothing waits for the outcomes; the slot goes when its place is needed.
            return;
        };
        let inner = Arc::downgrade(&self.0);
        drop(runtime.spawn(async move {
            // However it ended, everything has its outcome now.
            drop(flush_all(clients.into_iter().map(MailboxSender::into_boxed).collect()).await);
            if let Some(inner) = inner.upgrade() {
                inner.forget_unused(&slot);
            }
        }));
    }
}

impl Default for DialMailboxRouter {
    fn default() -> Self {
        Self::new()
    }
}

/// What the table says of a destination.
enum Found {
    Dial(Arc<Slot>),
    Sender(BoxedMailboxSender),
    Nobody(NotDelivered),
}

impl Inner {
    /// The table, to change it: from here on nothing that was found before counts.
    fn change(&self) -> RwLockWriteGuard<'_, Table> {
        let table = self.table.write();
        self.recent.forget();
        table
    }

    fn find(&self, dest: &PortId) -> Found {
        let missed = match self.recent.find(dest) {
            Ok(slot) => return Found::Dial(slot),
            Err(missed) => missed,
        };
        {
            let table = self.table.read();
            let slot = match table.book.lookup(dest) {
                Some(Route::Dial(slot)) => Some(slot),
                Some(Route::Sender(sender)) => return Found::Sender(sender.clone()),
                None => table.learned.lookup(dest),
            };
            if let Some(slot) = slot {
                self.recent.keep(dest, missed, slot);
                return Found::Dial(Arc::clone(slot));
            }
            if let Some(host) = table.owner(dest.proc_id()) {
                return Found::Nobody(table.unknown_proc(dest, host.clone()));
            }
            if let Some(sender) = &table.default {
                return Found::Sender(sender.clone());
            }
        }
        self.learn(dest)
    }

    /// Finds the way that the destination's own id tells, and remembers it.
    fn learn(&self, dest: &PortId) -> Found {
        let mut table = self.change();
        // Between the two locks the book may have changed.
        match table.book.lookup(dest) {
            Some(Route::Dial(slot)) => return Found::Dial(Arc::clone(slot)),
            Some(Route::Sender(sender)) => return Found::Sender(sender.clone()),
            None => {}
        }
        if let Some(host) = table.owner(dest.proc_id()) {
            return Found::Nobody(table.unknown_proc(dest, host.clone()));
        }
        let Some(slot) = table.slot(dest.proc_id().addr(), &self.options) else {
            let detail = format!(
                "{} addresses are in use, which is the limit",
                limits::ADDRESSES
            );
            return Found::Nobody(NotDelivered::NoRoute {
                port_id: dest.clone(),
                detail,
            });
        };
        if table.learned.len() >= limits::LEARNED_PROCS {
            table.learned.clear();
        }
        let proc_id = Reference::from(Arc::clone(dest.actor_id().proc()));
        table.learned.insert(proc_id, Arc::clone(&slot));
        Found::Dial(slot)
    }

    /// Takes a slot out, unless somebody is led to it, or has posted to it since.
    fn forget_unused(&self, slot: &Arc<Slot>) {
        let unused = {
            let mut table = self.change();
            let is_used = table.is_led_to(slot);
            if is_used { None } else { table.remove(slot) }
        };
        drop(unused);
    }
}

impl Table {
    /// The slot of an address, made if there is none; none at the limit.
    fn slot(&mut self, addr: &ChannelAddr, options: &Arc<DialOptions>) -> Option<Arc<Slot>> {
        if let Some(slot) = self.slots.get(addr) {
            return Some(Arc::clone(slot));
        }
        if self.slots.len() >= limits::ADDRESSES {
            self.forget_idle();
        }
        if self.slots.len() >= limits::ADDRESSES {
            return None;
        }
        let slot = Slot::new(addr.clone(), Arc::clone(options));
        self.slots.insert(addr.clone(), Arc::clone(&slot));
        Some(slot)
    }

    /// Makes room: takes out the addresses that are not in the book and have no connection.
    fn forget_idle(&mut self) {
        let unused: Vec<_> = self
            .slots
            .values()
            .filter(|slot| slot.is_idle() && !self.is_bound_to(slot))
            .cloned()
            .collect();
        for slot in unused {
            self.learned
                .retain(|_, learned| !Arc::ptr_eq(learned, &slot));
            self.slots.remove(slot.addr());
        }
    }

    fn remove(&mut self, slot: &Arc<Slot>) -> Option<Arc<Slot>> {
        match self.slots.get(slot.addr()) {
            Some(present) if Arc::ptr_eq(present, slot) => self.slots.remove(slot.addr()),
            _ => None,
        }
    }

    fn is_bound_to(&self, slot: &Arc<Slot>) -> bool {
        self.book
            .iter()
            .any(|(_, route)| matches!(route, Route::Dial(bound) if Arc::ptr_eq(bound, slot)))
    }

    fn is_led_to(&self, slot: &Arc<Slot>) -> bool {
        self.is_bound_to(slot)
            || self
                .learned
                .iter()
                .any(|(_, learned)| Arc::ptr_eq(learned, slot))
    }

    /// The owned address that a proc is below.
    fn owner(&self, proc_id: &ProcId) -> Option<&ChannelAddr> {
        self.owned
            .iter()
            .find(|owned| proc_id.addr().is_local_to(owned))
    }

    fn unknown_proc(&self, dest: &PortId, host: ChannelAddr) -> NotDelivered {
        let mut known: Vec<String> = self
            .book
            .iter()
            .filter(|(reference, _)| reference.actor_id().is_none())
            .filter(|(reference, _)| reference.proc_id().addr().is_local_to(&host))
            .map(|(reference, _)| reference.proc_id().name().to_owned())
            .collect();
        known.sort_unstable();
        known.truncate(mailbox_limits::KNOWN_NAMES);
        let proc_id = Arc::clone(dest.actor_id().proc());
        NotDelivered::UnknownProc {
            proc_id,
            host,
            known,
        }
    }
}

impl MailboxSender for DialMailboxRouter {
    fn post_unchecked(&self, envelope: MessageEnvelope, return_handle: ReturnHandle) {
        match self.0.find(envelope.dest()) {
            Found::Dial(slot) => slot.post(envelope, return_handle),
            // Spends a step: the sender may lead back here.
            Found::Sender(sender) => sender.post(envelope, return_handle),
            Found::Nobody(reason) => return_handle.undeliverable(envelope, reason),
        }
    }

    fn passage(&self, envelope: &MessageEnvelope) -> Option<Passage> {
        let age = self.0.recent.age();
        let Found::Dial(slot) = self.0.find(envelope.dest()) else {
            return None;
        };
        let has_ports = {
            let table = self.0.table.read();
            table.book.has_ports() || table.learned.has_ports()
        };
        if has_ports {
            return None;
        }
        Onward::by(&slot.present_client()?, envelope, age).map(Passage::new)
    }

    fn flush(&self) -> BoxFuture<'_, Result<(), FlushError>> {
        let senders: Vec<BoxedMailboxSender> = {
            let table = self.0.table.read();
            let clients = table.slots.values().flat_map(|slot| slot.clients());
            let bound = table.book.iter().filter_map(|(_, route)| match route {
                Route::Sender(sender) => Some(sender.clone()),
                Route::Dial(_) => None,
            });
            clients
                .map(MailboxSender::into_boxed)
                .chain(bound)
                .chain(table.default.clone())
                .collect()
        };
        Box::pin(flush_all(senders))
    }
}

impl fmt::Debug for DialMailboxRouter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let table = self.0.table.read();
        f.debug_struct("DialMailboxRouter")
            .field("bound", &table.book.len())
            .field("owned", &table.owned)
            .field("addresses", &table.slots.len())
            .finish()
    }
}
