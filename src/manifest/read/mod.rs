//! Reading: a stream of YAML or JSON becomes objects with their places, and an object becomes a specification.

pub(crate) mod certificate;
pub(crate) mod issuer;
mod object;
pub(crate) mod policy;
pub(crate) mod secret;
mod spelling;
mod stream;

pub(crate) use crate::yaml::decode;
pub(crate) use object::Object;
pub(crate) use stream::{Foreign, Stream, refuse_twins, stream};
