//! The lives of procs that ended: who sends to one of them is told how it ended, instead of that nobody knows the name.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use hyperactor_mailbox::DeathCertificate;
use hyperactor_refs::ProcId;
use parking_lot::RwLock;

use crate::limits;

/// The last life of each name that has none now. A clone is another handle of the same book.
///
/// # Bounds
/// At most [`limits::DEPARTED_MAX`] names; the ones that have been gone for longest are forgotten.
#[derive(Clone, Default)]
pub(crate) struct Departed(Arc<Shared>);

#[derive(Default)]
struct Shared {
    /// How many there are, for those who only want to know that there are none.
    count: AtomicUsize,
    book: RwLock<Book>,
}

#[derive(Default)]
struct Book {
    by_name: HashMap<String, Arc<DeathCertificate>>,
    /// The names in the order of their entry; a name that was taken out since may still be here.
    order: VecDeque<String>,
}

impl Departed {
    /// Enters the end of a life.
    pub(crate) fn enter(&self, certificate: Arc<DeathCertificate>) {
        let name = certificate.proc_id.name().to_owned();
        let mut book = self.0.book.write();
        if book.by_name.insert(name.clone(), certificate).is_none() {
            book.order.push_back(name);
        }
        while book.order.len() > limits::DEPARTED_MAX {
            if let Some(oldest) = book.order.pop_front() {
                book.by_name.remove(&oldest);
            }
        }
        self.0.count.store(book.by_name.len(), Ordering::Relaxed);
    }

    /// A name lives again.
    pub(crate) fn leave(&self, name: &str) {
        let mut book = self.0.book.write();
        if book.by_name.remove(name).is_some() {
            book.order.retain(|other| other != name);
        }
        self.0.count.store(book.by_name.len(), Ordering::Relaxed);
    }

    pub(crate) fn find(&self, proc_id: &ProcId) -> Option<Arc<DeathCertificate>> {
        if self.0.count.load(Ordering::Relaxed) == 0 {
            return None;
        }
        let book = self.0.book.read();
        let certificate = book.by_name.get(proc_id.name())?;
        (certificate.proc_id.addr() == proc_id.addr()).then(|| Arc::clone(certificate))
    }
}

#[cfg(test)]
mod tests {
    use hyperactor_mailbox::ProcExit;
    use hyperactor_refs::Incarnation;

    use super::*;

    fn id(name: &str) -> ProcId {
        ProcId::Direct("tcp:127.0.0.1:4000".parse().unwrap(), name.to_owned())
    }

    fn end(name: &str) -> Arc<DeathCertificate> {
        let proc_id = Arc::new(id(name));
        let (life, exit) = (Incarnation::new(1), ProcExit::Exited(1));
        Arc::new(DeathCertificate::new(proc_id, life, exit))
    }

    #[test]
    fn a_name_is_found_until_it_lives_again() {
        let departed = Departed::default();
        assert_eq!(departed.find(&id("a")), None);
        departed.enter(end("a"));
        departed.enter(end("b"));
        assert_eq!(departed.find(&id("a")), Some(end("a")));
        assert_eq!(departed.find(&id("c")), None);
        let elsewhere = ProcId::Direct("tcp:127.0.0.1:4001".parse().unwrap(), "a".to_owned());
        assert_eq!(departed.find(&elsewhere), None);
        departed.leave("a");
        assert_eq!(departed.find(&id("a")), None);
        assert_eq!(departed.find(&id("b")), Some(end("b")));
    }

    #[test]
    fn the_oldest_are_forgotten() {
        let departed = Departed::default();
        for number in 0..=limits::DEPARTED_MAX {
            departed.enter(end(&number.to_string()));
        }
        assert_eq!(departed.find(&id("0")), None);
        assert!(departed.find(&id("1")).is_some());
        let book = departed.0.book.read();
        assert_eq!(book.by_name.len(), limits::DEPARTED_MAX);
        assert_eq!(book.order.len(), limits::DEPARTED_MAX);
    }
}
