//! The proc: a container of actors with one identity and one way out, its forwarder. Ending one in order is in
//! `stop.rs`.

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::num::NonZero;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use hyperactor_mailbox::{
    BindError, BoxFuture, BoxedMailboxSender, BriefMutex, FlushError, Mailbox, MailboxMuxer,
    MailboxSender, MessageEnvelope, NotDelivered, ReturnHandle, UnroutableMailboxSender,
};
use hyperactor_refs::{ActorId, ChannelAddr, Incarnation, ProcId, check_name};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tracing::Instrument;

use crate::blocking::Pace;
use crate::cell::Cell;
use crate::control::{AnyCell, Control, Deadlines, End};
use crate::flush;
use crate::inbox::Inbox;
use crate::residents::{ClientEntry, Resident, Residents, Teller};
use crate::run::{Ending, run};
use crate::runs::Origin;
use crate::supervision::{Cause, Event, Supervision, Watchers};
use crate::system::System;
use crate::{
    Actor, ActorHandle, ActorStatus, Client, Message, ProcGone, SpawnError, SpawnOptions, panics,
};

/// A container of actors: one identity, one table of actors, one way out.
///
/// Every message of its actors goes through it: to an actor of the same proc in memory, to everybody else through
/// the forwarder. As a [`MailboxSender`] it takes envelopes from outside in the same way.
///
/// A clone is another owner of the same proc. Its actors do not own it: when the last owner is dropped, they are
/// stopped, the forwarder is dropped, and what they still send comes back as [`NotDelivered::ProcGone`].
///
/// Making a proc needs no runtime; spawning an actor does.
#[derive(Clone)]
pub struct Proc {
    inner: Arc<Inner>,
}

struct Inner {
    id: Arc<ProcId>,
    incarnation: Incarnation,
    /// This proc, for those who do not own it: they share one.
    weak: WeakProc,
    forwarder: BoxedMailboxSender,
    muxer: MailboxMuxer,
    residents: Mutex<Residents>,
    /// The index of the next child, unique in the proc, so that no id is used twice.
    next_index: AtomicU64,
    /// The key of the next watch, unique in the life of the proc.
    next_key: AtomicU64,
    system: System,
}

#[derive(Default)]
struct Counters {
    in_process: AtomicU64,
    forwarded: AtomicU64,
    received: AtomicU64,
    unhandled: AtomicU64,
}

/// How many messages went which way, since the proc was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Message, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Traffic {
    /// Posted here for an actor of this proc by reference or port. Posts through an [`ActorHandle`] pass no proc
    /// and are not counted.
    pub in_process: u64,
    /// Handed to the forwarder.
    pub forwarded: u64,
    /// Taken from outside for an actor of this proc.
    pub received: u64,
    /// Placed in the queue of an actor that ended before it came to them.
    pub unhandled: u64,
}

/// One entry of a snapshot of a proc.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ActorInfo {
    /// Who.
    pub actor_id: ActorId,
    /// What it was doing.
    pub status: ActorStatus,
}

impl Proc {
    /// A proc with this identity, which hands everything that is not its own to `forwarder`.
    ///
    /// Needs no runtime. The incarnation is drawn at random.
    pub fn new(proc_id: ProcId, forwarder: BoxedMailboxSender) -> Self {
        Self::with_incarnation(proc_id, random_incarnation(), forwarder)
    }

    /// As [`new`](Self::new), with an incarnation that somebody else chose, such as the host of the proc.
    pub fn with_incarnation(
        proc_id: ProcId,
        incarnation: Incarnation,
        forwarder: BoxedMailboxSender,
    ) -> Self {
        let id = Arc::new(proc_id);
        let muxer = MailboxMuxer::new();
        let inner = Arc::new_cyclic(|inner| {
            let weak = WeakProc(Arc::new(Known {
                id: Arc::clone(&id),
                incarnation,
                inner: Weak::clone(inner),
                counters: Counters::default(),
            }));
            Inner {
                id,
                incarnation,
                forwarder,
                muxer,
                residents: Mutex::default(),
                next_index: AtomicU64::new(1),
                next_key: AtomicU64::new(1),
                system: System::new(&weak),
                weak,
            }
        });
        if let Err(error) = inner.muxer.bind(inner.system.mailbox().clone()) {
            // The table is new and empty; without the entry, other procs find none of the actors' ends.
            tracing::error!(proc = %inner.id, "the system mailbox is not bound: {error}");
        }
        Self { inner }
    }

    /// A proc without a way out: for programs of one process, and for tests.
    ///
    /// Its address is in-process and served by nobody; a message to another proc comes back as
    /// [`NotDelivered::NoRoute`].
    pub fn isolated(name: &str) -> Self {
        // Numbers from the top, which nobody binds: an address of this kind is never dialled.
        static NEXT: AtomicU64 = AtomicU64::new(u64::MAX);
        let number = NEXT.fetch_sub(1, Ordering::Relaxed);
        let addr = ChannelAddr::Local(NonZero::new(number).unwrap_or(NonZero::<u64>::MAX));
        let forwarder = UnroutableMailboxSender::new("the sending proc is isolated");
        Self::new(
            ProcId::Direct(addr, name.to_owned()),
            forwarder.into_boxed(),
        )
    }

    /// Who it is.
    pub fn proc_id(&self) -> &ProcId {
        &self.inner.id
    }

    /// The life of it that this is.
    pub fn incarnation(&self) -> Incarnation {
        self.inner.incarnation
    }

    /// The id that the actor `name` has, or would have, in this proc.
    pub fn actor_id(&self, name: &str) -> ActorId {
        ActorId::root(Arc::clone(&self.inner.id), name)
    }

    /// Spawns an actor. It returns at once; [`Actor::init`] runs in the actor's task, and what goes wrong there is
    /// seen in the actor's status and by [`ActorHandle::join`].
    ///
    /// # Errors
    /// [`SpawnError`]; a name is free again when its actor has ended.
    pub fn spawn<A: Actor>(&self, name: &str, actor: A) -> Result<ActorHandle<A>, SpawnError> {
        self.spawn_with(name, actor, &SpawnOptions::default())
    }

    /// As [`spawn`](Self::spawn), with options.
    ///
    /// # Errors
    /// As [`spawn`](Self::spawn).
    pub fn spawn_with<A: Actor>(
        &self,
        name: &str,
        actor: A,
        options: &SpawnOptions,
    ) -> Result<ActorHandle<A>, SpawnError> {
        check_name(name)?;
        self.start(&self.actor_id(name), None, actor, options)
    }

    pub(crate) fn spawn_child<A: Actor>(
        &self,
        parent: &Arc<dyn AnyCell>,
        actor: A,
    ) -> Result<ActorHandle<A>, SpawnError> {
        let index = self.inner.next_index.fetch_add(1, Ordering::Relaxed);
        let id = parent.actor_id().sibling(parent.actor_id().name(), index);
        self.start(&id, Some(parent), actor, &SpawnOptions::default())
    }

    /// A child under a name of its own, with the index 0.
    pub(crate) fn spawn_child_as<A: Actor>(
        &self,
        parent: &Arc<dyn AnyCell>,
        name: &str,
        actor: A,
        options: &SpawnOptions,
    ) -> Result<ActorHandle<A>, SpawnError> {
        check_name(name)?;
        self.start(&self.actor_id(name), Some(parent), actor, options)
    }

    fn start<A: Actor>(
        &self,
        id: &ActorId,
        parent: Option<&Arc<dyn AnyCell>>,
        actor: A,
        options: &SpawnOptions,
    ) -> Result<ActorHandle<A>, SpawnError> {
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            return Err(SpawnError::NoRuntime {
                name: id.name().to_owned(),
            });
        };
        panics::install_hook();
        self.inner.system.ticker.on(&runtime);
        let deadlines = Deadlines {
            cleanup: options.cleanup_deadline,
            children: options.children_deadline,
            stop: options.stop_deadline,
        };
        let parent_of = parent.map(Arc::downgrade);
        let cell = Arc::new(Cell {
            control_types: options.control_types(),
            mailbox: Mailbox::with_capacity(id.clone(), options.queue_capacity),
            proc: self.downgrade(),
            is_exported: AtomicBool::new(false),
            inbox: Inbox::new(options.queue_capacity, options.overflow),
            in_hand: BriefMutex::default(),
            control: Control::new(id.clone(), parent_of, deadlines, Pace::on(&runtime)),
        });
        let any_cell: Arc<dyn AnyCell> = cell.clone();
        self.settle(&cell.mailbox, Resident::Actor(Arc::clone(&any_cell)))?;
        if let Some(parent) = parent
            && !parent.adopt(&any_cell)
        {
            self.unbind(id);
            self.forget(id);
            return Err(SpawnError::ParentEnding {
                parent: parent.actor_id().clone(),
            });
        }
        // Only now: nothing is placed in the queue of an actor that is not going to live.
        cell.mailbox.set_owner(Arc::downgrade(&cell));
        // Stable names: whoever filters or measures by them depends on it.
        let span = tracing::debug_span!(target: "hyperactor::actor", "actor", id = %id);
        tracing::debug!(target: "hyperactor::actor", parent: &span, event = "actor.spawned", actor = %id, "actor spawned");
        let ending = Ending::new(Arc::clone(&cell));
        let life = run(ending, actor);
        if span.is_disabled() {
            runtime.spawn(life);
        } else {
            let life: BoxFuture<'static, ()> = Box::pin(life.instrument(span));
            runtime.spawn(life);
        }
        Ok(ActorHandle::new(cell))
    }

    /// A client: a mailbox of this proc that the caller drives, for code that is no actor, such as `main`.
    ///
    /// # Errors
    /// [`SpawnError`]; the name is free again when the client was dropped.
    pub fn client(&self, name: &str) -> Result<Client, SpawnError> {
        check_name(name)?;
        let mailbox = Mailbox::new(self.actor_id(name));
        let client = Client::new(mailbox.clone(), self.downgrade());
        mailbox.report_to(client.sink());
        let resident = Resident::Client(Arc::new(ClientEntry {
            id: mailbox.actor_id().clone(),
            sink: client.sink(),
            watchers: Watchers::default(),
        }));
        match self.settle(&mailbox, resident) {
            Ok(()) => Ok(client.settled()),
            Err(error) => Err(error),
        }
    }

    /// Enters somebody into the tables.
    fn settle(&self, mailbox: &Mailbox, resident: Resident) -> Result<(), SpawnError> {
        let id = mailbox.actor_id();
        let mut residents = self.inner.residents.lock();
        // Children are still taken: a parent may need one to handle what is in its queue, and ends it.
        let is_child = matches!(&resident, Resident::Actor(control) if control.has_parent());
        if residents.is_closed && !is_child {
            return Err(SpawnError::ProcStopping {
                proc_id: Arc::clone(&self.inner.id),
            });
        }
        let taken = || SpawnError::NameTaken {
            name: id.name().to_owned(),
            proc_id: Arc::clone(&self.inner.id),
        };
        if residents.by_id.contains(id) {
            return Err(taken());
        }
        // Nor is the name of the system mailbox free, which the muxer knows.
        self.inner
            .muxer
            .bind(mailbox.clone())
            .map_err(|error| match error {
                BindError::ActorTaken { .. } => taken(),
                error => SpawnError::Full {
                    proc_id: Arc::clone(&self.inner.id),
                    error,
                },
            })?;
        residents.by_id.insert(resident);
        Ok(())
    }

    /// From here on, messages for it come back as for an actor that has stopped.
    pub(crate) fn unbind(&self, id: &ActorId) {
        self.inner.muxer.unbind(id);
    }

    /// From here on, its name is free.
    pub(crate) fn forget(&self, id: &ActorId) {
        let resident = {
            let mut residents = self.inner.residents.lock();
            let resident = residents.by_id.take(id);
            if let Some(Resident::Actor(control)) = &resident {
                // Under the lock, so that whoever adds up finds it here or there.
                let counter = &self.inner.counters().in_process;
                counter.fetch_add(control.by_reference(), Ordering::Relaxed);
            }
            resident
        };
        // An actor tells its watchers itself, with what it knows.
        if let Some(Resident::Client(client)) = resident {
            let event = Event::bare(id.clone(), Some(self.incarnation()), Cause::Stopped);
            client.watchers.tell(&Arc::new(event));
        }
    }

    /// The actors that live here, in the order of their ids. Clients are not among them.
    pub fn actors(&self) -> Vec<ActorInfo> {
        let mut actors: Vec<_> = self
            .controls(|_| true)
            .iter()
            .map(|control| ActorInfo {
                actor_id: control.actor_id().clone(),
                status: control.status_now(),
            })
            .collect();
        actors.sort_by(|a, b| a.actor_id.cmp(&b.actor_id));
        actors
    }

    pub(crate) fn client_ids(&self) -> Vec<ActorId> {
        let residents = self.inner.residents.lock();
        let clients = residents.by_id.iter();
        clients
            .filter(|resident| matches!(resident, Resident::Client(_)))
            .map(|resident| resident.id().clone())
            .collect()
    }

    pub(crate) fn controls(&self, which: impl Fn(&Control) -> bool) -> Vec<Arc<dyn AnyCell>> {
        let residents = self.inner.residents.lock();
        residents
            .by_id
            .iter()
            .filter_map(|resident| match resident {
                Resident::Actor(control) if which(control) => Some(Arc::clone(control)),
                _ => None,
            })
            .collect()
    }

    /// An actor or a client of this proc; nothing where there is none of this id.
    pub(crate) fn resident(&self, id: &ActorId) -> Option<Resident> {
        self.inner.residents.lock().by_id.get(id).cloned()
    }

    pub(crate) fn system(&self) -> &System {
        &self.inner.system
    }

    pub(crate) fn supervision(&self) -> &Supervision {
        &self.inner.system.supervision
    }

    pub(crate) fn next_key(&self) -> u64 {
        self.inner.next_key.fetch_add(1, Ordering::Relaxed)
    }

    pub(crate) fn owns(&self, actor: &ActorId) -> bool {
        self.inner.owns(actor)
    }

    /// Posts for the proc itself.
    pub(crate) fn post_from_here(&self, envelope: MessageEnvelope, return_handle: ReturnHandle) {
        if self.inner.owns(envelope.dest().actor_id()) {
            self.inner.muxer.post_unchecked(envelope, return_handle);
        } else {
            // What keeps procs informed of each other is no traffic of their actors, and is not counted.
            self.inner.forwarder.post(envelope, return_handle);
        }
    }

    pub(crate) fn control(&self, id: &ActorId) -> Option<Arc<dyn AnyCell>> {
        match self.inner.residents.lock().by_id.get(id) {
            Some(Resident::Actor(control)) => Some(Arc::clone(control)),
            _ => None,
        }
    }

    /// Refuses new actors from here on, but for the children of those that live.
    pub(crate) fn close(&self) {
        self.inner.residents.lock().is_closed = true;
    }

    /// How many messages went which way so far.
    pub fn traffic(&self) -> Traffic {
        let counters = self.inner.counters();
        let in_process = {
            let residents = self.inner.residents.lock();
            let by_reference = residents.by_id.iter().map(|resident| match resident {
                Resident::Actor(control) => control.by_reference(),
                Resident::Client(_) => 0,
            });
            counters.in_process.load(Ordering::Relaxed) + by_reference.sum::<u64>()
        };
        Traffic {
            in_process,
            forwarded: counters.forwarded.load(Ordering::Relaxed),
            received: counters.received.load(Ordering::Relaxed),
            unhandled: counters.unhandled.load(Ordering::Relaxed),
        }
    }

    pub(crate) fn downgrade(&self) -> WeakProc {
        self.inner.weak.clone()
    }

    /// Counts a message that was queued for an actor and not handled, and finds whom to tell: its sender, if that lives
    /// here.
    pub(crate) fn sender_of_unhandled(&self, origin: &Origin) -> Option<Teller> {
        let inner = &*self.inner;
        inner.counters().unhandled.fetch_add(1, Ordering::Relaxed);
        match origin {
            Origin::Envelope { sender, .. } if inner.owns(sender) => {
                inner.residents.lock().teller(sender)
            }
            Origin::Handle { sender_hash } | Origin::Reference { sender_hash } => {
                inner.residents.lock().teller_by_hash(*sender_hash)
            }
            Origin::Envelope { .. }
            | Origin::Remote { .. }
            | Origin::Request { .. }
            | Origin::Own { .. } => None,
        }
    }
}

impl Inner {
    fn counters(&self) -> &Counters {
        &self.weak.0.counters
    }

    fn owns(&self, actor: &ActorId) -> bool {
        self.system.actor_id().shares_proc(actor)
    }

    fn route(&self, envelope: MessageEnvelope, return_handle: ReturnHandle, own: &AtomicU64) {
        if self.owns(envelope.dest().actor_id()) {
            if envelope.dest().actor_id() != self.system.actor_id() {
                own.fetch_add(1, Ordering::Relaxed);
            }
            self.muxer.post_unchecked(envelope, return_handle);
        } else {
            self.counters().forwarded.fetch_add(1, Ordering::Relaxed);
            self.forwarder.post(envelope, return_handle);
        }
    }
}

impl MailboxSender for Proc {
    /// Takes an envelope from outside: for an actor of this proc, or else for the forwarder.
    fn post_unchecked(&self, envelope: MessageEnvelope, return_handle: ReturnHandle) {
        let inner = &*self.inner;
        inner.route(envelope, return_handle, &inner.counters().received);
    }

    /// Resolves when everything that was handed to the forwarder has an outcome. Messages within the proc have
    /// theirs before a post returns.
    fn flush(&self) -> BoxFuture<'_, Result<(), FlushError>> {
        // The address of what lives as long as the flush is a number that no other proc has.
        let whose = Arc::as_ptr(&self.inner) as usize;
        flush::once(whose, || self.inner.forwarder.flush())
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        for resident in self.residents.get_mut().by_id.drain() {
            if let Resident::Actor(control) = resident {
                control.end(End::Stop);
            }
        }
    }
}

impl fmt::Debug for Proc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Proc")
            .field("proc_id", &format_args!("{}", self.inner.id))
            .field("incarnation", &self.inner.incarnation)
            .finish_non_exhaustive()
    }
}

/// A proc as its actors and clients know it: without owning it.
#[derive(Clone)]
pub(crate) struct WeakProc(Arc<Known>);

/// What is known of a proc whether it is still there or not.
struct Known {
    id: Arc<ProcId>,
    incarnation: Incarnation,
    inner: Weak<Inner>,
    counters: Counters,
}

impl WeakProc {
    pub(crate) fn proc_id(&self) -> &Arc<ProcId> {
        &self.0.id
    }

    pub(crate) fn incarnation(&self) -> Incarnation {
        self.0.incarnation
    }

    /// The counter of messages within the proc.
    pub(crate) fn placed(&self) -> &AtomicU64 {
        &self.0.counters.in_process
    }

    /// Watches another proc: resolves when it is lost, to how in words.
    pub(crate) fn lost(&self, proc_id: &ProcId) -> Option<BoxFuture<'static, String>> {
        let watch = self.upgrade().ok()?.watch_proc(proc_id);
        Some(Box::pin(async move { watch.lost().await.to_string() }))
    }

    pub(crate) fn upgrade(&self) -> Result<Proc, ProcGone> {
        match self.0.inner.upgrade() {
            Some(inner) => Ok(Proc { inner }),
            None => Err(ProcGone {
                proc_id: Arc::clone(&self.0.id),
            }),
        }
    }

    /// The mailbox of an actor of the proc, for somebody who lives there.
    pub(crate) fn resolve(&self, actor_id: &ActorId) -> Option<Mailbox> {
        let inner = self.0.inner.upgrade()?;
        inner
            .owns(actor_id)
            .then(|| inner.muxer.get(actor_id))
            .flatten()
    }

    /// As [`post`](Self::post), into a mailbox of the proc that was resolved before.
    pub(crate) fn post_into(
        &self,
        mailbox: &Mailbox,
        envelope: MessageEnvelope,
        return_handle: ReturnHandle,
    ) {
        match self.0.inner.upgrade() {
            Some(inner) => {
                inner.counters().in_process.fetch_add(1, Ordering::Relaxed);
                mailbox.place(envelope, return_handle);
            }
            None => self.post(envelope, return_handle),
        }
    }

    /// Posts for somebody who lives in the proc.
    pub(crate) fn post(&self, envelope: MessageEnvelope, return_handle: ReturnHandle) {
        match self.0.inner.upgrade() {
            Some(inner) => inner.route(envelope, return_handle, &inner.counters().in_process),
            None => {
                let proc_id = Arc::clone(&self.0.id);
                return_handle.undeliverable(envelope, NotDelivered::ProcGone { proc_id });
            }
        }
    }
}

/// An incarnation that no other life of the proc has, but for one chance in 2^64.
fn random_incarnation() -> Incarnation {
    let number = getrandom::u64().unwrap_or_else(|error| {
        // Only on systems without a source of randomness. The hasher's keys and the clock still differ.
        tracing::debug!("no random number from the system: {error}");
        RandomState::new().hash_one(std::time::SystemTime::now())
    });
    Incarnation::new(number)
}
