//! What all references to actors have in common: each is the actor's id and a claim of what the actor takes, and only the id counts
//! when they are compared, printed, parsed and encoded. Sending through them is not here.

/// Implements that for `$reference<$claim>`, of which the fields are `actor_id`, `known` and `claim`, and which has `attest`.
macro_rules! is_an_id_with_a_claim {
    ($reference:ident<$claim:ident>) => {
        // The claim is that of whoever made the reference; it is not part of the encoding.
        impl<$claim: 'static> ::hyperactor_mailbox::Message for $reference<$claim> {
            const TYPE_HASH: u64 = ::hyperactor_mailbox::type_hash(stringify!($reference));

            fn type_name() -> ::std::borrow::Cow<'static, str> {
                ::std::borrow::Cow::Borrowed(stringify!($reference))
            }
        }

        impl<$claim> Clone for $reference<$claim> {
            fn clone(&self) -> Self {
                Self {
                    actor_id: self.actor_id.clone(),
                    known: self.known.clone(),
                    claim: ::std::marker::PhantomData,
                }
            }
        }

        impl<$claim> PartialEq for $reference<$claim> {
            fn eq(&self, other: &Self) -> bool {
                self.actor_id == other.actor_id
            }
        }

        impl<$claim> Eq for $reference<$claim> {}

        impl<$claim> PartialOrd for $reference<$claim> {
            fn partial_cmp(&self, other: &Self) -> Option<::std::cmp::Ordering> {
                Some(self.cmp(other))
            }
        }

        impl<$claim> Ord for $reference<$claim> {
            fn cmp(&self, other: &Self) -> ::std::cmp::Ordering {
                self.actor_id.cmp(&other.actor_id)
            }
        }

        impl<$claim> ::std::hash::Hash for $reference<$claim> {
            fn hash<H: ::std::hash::Hasher>(&self, state: &mut H) {
                self.actor_id.hash(state);
            }
        }

        impl<$claim> ::std::fmt::Display for $reference<$claim> {
            fn fmt(&self, f: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {
                self.actor_id.fmt(f)
            }
        }

        impl<$claim> ::std::fmt::Debug for $reference<$claim> {
            fn fmt(&self, f: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {
                write!(f, "{}({})", stringify!($reference), self.actor_id)
            }
        }

        /// Parses the text of an actor id. What the actor takes is the caller's claim, as with `attest`.
        impl<$claim> ::std::str::FromStr for $reference<$claim> {
            type Err = ::hyperactor_refs::ParseError;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                text.parse().map(Self::attest)
            }
        }

        impl<$claim> ::serde::Serialize for $reference<$claim> {
            fn serialize<S: ::serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                self.actor_id.serialize(serializer)
            }
        }

        impl<'de, $claim> ::serde::Deserialize<'de> for $reference<$claim> {
            fn deserialize<D: ::serde::Deserializer<'de>>(
                deserializer: D,
            ) -> Result<Self, D::Error> {
                ::hyperactor_refs::ActorId::deserialize(deserializer).map(Self::attest)
            }
        }
    };
}

pub(crate) use is_an_id_with_a_claim;
