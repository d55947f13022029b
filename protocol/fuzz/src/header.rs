//! The header of a relayed connection.

use phlix_protocol::native::stream::{HeaderError, MAX_HEADER, ResetCode, StreamHeader, StreamStatus};

use crate::input::Input;

pub(crate) fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let length = [input.byte(), input.byte()];
    let number = u16::from_be_bytes(length);
    match StreamHeader::announced(length) {
        Ok(length) => assert!(length <= MAX_HEADER),
        Err(error) => assert_eq!(error, HeaderError::TooLong(number.into())),
    }
    assert_eq!(StreamStatus::from_byte(length[0]).map_or(length[0], StreamStatus::byte), length[0]);
    let code = ResetCode::from_code(number.into());
    assert_eq!(ResetCode::from_code(code.code().into()), code);
    if let Ok(header) = StreamHeader::parse(input.rest())
        && let Ok(wire) = header.encode()
    {
        assert_eq!(StreamHeader::parse(&wire[2..]), Ok(header));
    }
}
