#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| certwright::fuzzing::run("manifests", bytes));
