//! Bodies of requests for predictions, JSON with binary data behind it: an error, or arrays that are as large as their shapes say
//! and no larger than the body.

#![no_main]

use libfuzzer_sys::fuzz_target;
use weightpress::http::read_inputs;

/// How many bytes are JSON, where not all of them are; then the body.
fuzz_target!(|input: (Option<u16>, &[u8])| {
    let (json_length, body) = input;
    let Ok(inputs) = read_inputs(body, json_length.map(usize::from)) else { return };
    inputs.iter().for_each(|(name, array)| assert!(array.check().is_ok(), "{name}"));
    let elements: usize = inputs.iter().map(|(_, array)| array.dims.iter().product::<usize>()).sum();
    assert!(elements <= body.len());
});
