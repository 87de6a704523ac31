//! What clients and operators see, on both databases and against real counterparts.

mod order_machine;
