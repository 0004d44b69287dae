#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| galene_sip_fuzz::machines::turn::run(bytes));
