//! What clients and operators see, on both databases and against real counterparts.

mod architecture;
mod order_machine;
