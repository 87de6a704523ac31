//! Limits on what is asked of CAs and DNS providers. They know no pool, no step and no context.

mod admission;
mod breaker;
pub(crate) mod budget;
mod learned_waits;
mod order_gate;
mod order_window;
mod quota;
mod refused_requests;

pub use admission::Limits;
pub(crate) use admission::{Admission, UNNAMED};
pub(crate) use learned_waits::{Look, Work};
pub use order_window::NewOrders;
pub use quota::Quota;
pub(crate) use quota::Share;
