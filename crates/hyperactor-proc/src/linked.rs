//! Registration at link time: the types that say `#[actor(linked)]`, gathered from the whole program. The registry, which
//! needs none of this, is in `registry.rs`.

#[cfg(feature = "link-registration")]
mod gathered {
    use crate::{Registry, RemoteSpawn};

    /// One type that says `#[actor(linked)]`.
    pub struct Linked {
        add: fn(Registry) -> Registry,
    }

    impl Linked {
        /// The entry of `A`.
        pub const fn of<A: RemoteSpawn>() -> Self {
            Self {
                add: Registry::with::<A>,
            }
        }
    }

    inventory::collect!(Linked);

    impl Registry {
        /// Adds every type in the program, its libraries included, whose derive says `#[actor(linked)]`.
        ///
        /// A library of which the program names nothing may be left out by the linker, and its types with it; name one
        /// of them, or list it with [`with`](Self::with), which always works.
        ///
        /// # Panics
        /// As [`with`](Self::with), when two of the types have one name.
        #[must_use]
        pub fn with_linked(self) -> Self {
            inventory::iter::<Linked>
                .into_iter()
                .fold(self, |registry, linked| (linked.add)(registry))
        }
    }
}

#[cfg(feature = "link-registration")]
pub use gathered::Linked;

/// Registers a type at link time, for the derive of `Actor`.
#[cfg(feature = "link-registration")]
#[doc(hidden)]
#[macro_export]
macro_rules! __link {
    ($actor:ty) => {
        $crate::__private::inventory::submit! { $crate::__private::Linked::of::<$actor>() }
    };
}

/// Says which feature is missing, for the derive of `Actor`.
#[cfg(not(feature = "link-registration"))]
#[doc(hidden)]
#[macro_export]
macro_rules! __link {
    ($actor:ty) => {
        ::core::compile_error!(
            "`#[actor(linked)]` needs the feature `link-registration` of `hyperactor`, or of `hyperactor-proc`; without it, list the type with `Registry::with`"
        );
    };
}
