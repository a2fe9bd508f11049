//! Setters of an endpoint for the closures of its handlers.

/// The setter of one closure: it changes the endpoint's factory, which is a `$handlers`.
macro_rules! closure_setter {
    ([$($bound:tt)*] $handlers:ident $setter:ident ($($argument:ty),*) (=> $answer:ty)) => {
        #[doc = concat!(
            "As [`", stringify!($handlers), "::", stringify!($setter), "`](crate::endpoint::",
            stringify!($handlers), "::", stringify!($setter), ").",
        )]
        pub fn $setter<R: Into<$answer>>(
            &mut self,
            f: impl Fn($($argument),*) -> R + $($bound)*,
        ) -> &mut Self {
            self.core.change_factory(|handlers| _ = handlers.$setter(f));
            self
        }
    };
    ([$($bound:tt)*] $handlers:ident $setter:ident ($($argument:ty),*) ($(-> $result:ty)?)) => {
        #[doc = concat!(
            "As [`", stringify!($handlers), "::", stringify!($setter), "`](crate::endpoint::",
            stringify!($handlers), "::", stringify!($setter), ").",
        )]
        pub fn $setter(
            &mut self,
            f: impl Fn($($argument),*) $(-> $result)? + $($bound)*,
        ) -> &mut Self {
            self.core.change_factory(|handlers| _ = handlers.$setter(f));
            self
        }
    };
}
pub(crate) use closure_setter;

/// Gives an endpoint one setter for each closure of `$handlers`.
macro_rules! closure_setters {
    (
        $endpoint:ident, [$($kind:ident: $kind_trait:ident)?], $handlers:ident, $bounds:tt;
        $($field:ident $setter:ident: fn $arguments:tt $(-> $result:ty)? $(=> $answer:ty)?;)*
    ) => {
        impl $(<$kind: $kind_trait>)? $endpoint<crate::session::$handlers $(, $kind)?> {
            $(crate::endpoint::closure_setter! {
                $bounds $handlers $setter $arguments ($(-> $result)? $(=> $answer)?)
            })*
        }
    };
}
pub(crate) use closure_setters;
