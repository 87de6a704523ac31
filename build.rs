//! How the program is linked.

use std::env;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    // A megabyte of addresses to adjust, all of which is read at the start and stays in memory, as 40 KiB. Linkers
    // that cannot do it say so and leave them as they are; glibc can read it from 2.36 on.
    if env::var("CARGO_CFG_TARGET_ENV").is_ok_and(|env| env == "gnu") {
        println!("cargo::rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
    }
}
