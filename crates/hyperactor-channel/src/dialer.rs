//! The sending side over byte streams. Not there yet: every post fails at once.

use std::marker::PhantomData;

use hyperactor_refs::ChannelAddr;

use crate::outbound::{Common, Link};
use crate::{Codec, Completion, DialOptions, Reason, Rejected, Status};

pub(crate) struct NetLink<M, K>(Common, PhantomData<fn(M, K)>);

impl<M: Send + 'static, K: Completion<M>> NetLink<M, K> {
    pub(crate) fn new<C: Codec<M>>(addr: ChannelAddr, _options: DialOptions, _codec: C) -> Self {
        let common = Common::new(addr);
        common.publish(Status::Closed(Reason::Closed));
        Self(common, PhantomData)
    }
}

impl<M: Send + 'static, K: Completion<M>> Link<M, K> for NetLink<M, K> {
    fn common(&self) -> &Common {
        &self.0
    }
    fn offer(&self, message: M, completion: K) -> Result<(), Rejected<M, K>> {
        Err(Rejected {
            message,
            completion,
            reason: Reason::Closed,
        })
    }
    fn posted(&self) -> u64 {
        0
    }
    fn close(&self) {}
}
