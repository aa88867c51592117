//! How large the parts are that a message is cut into. That they pass, and what becomes of them, is the matter of `parts`.

use bytes::Bytes;
use hyperactor_protocol::{Config, Frame, FrameDecoder, limits};

use crate::common::Pair;
use crate::labels::label;
use crate::parts::push_large;

/// S-34: parts that are as large as may be cost least; how much is handed out at a time is no matter of theirs.
#[test]
fn a_message_beside_which_nothing_waits_goes_out_in_large_parts() {
    const MESSAGES: u64 = 8;
    const BYTES: usize = 1 << 20;
    for at_once in [1, 64 * 1024, 256 * 1024, 1 << 20] {
        let mut pair = Pair::connected(&Config::default());
        let to = label(&mut pair.dialer, "large");
        for _ in 0..MESSAGES {
            push_large(&mut pair.dialer, to, b"head", Bytes::from(vec![0; BYTES]));
        }
        let epoch = pair.epoch();
        let mut decoder = FrameDecoder::new(1 << 20);
        let (mut parts, mut bytes) = (0, 0);
        while let Some(written) = pair.dialer.transmit(epoch, pair.now, at_once) {
            decoder.buffer().extend_from_slice(&written.bytes);
            while let Some(frame) = decoder.next_frame().expect("own frames") {
                if let Frame::Data { body, .. } = &frame {
                    parts += 1;
                    bytes += body.len();
                }
            }
        }
        assert!(
            bytes as u64 > MESSAGES * BYTES as u64,
            "{bytes} bytes went out"
        );
        // Of each message a small one first, and where the bytes of a message do not begin with a part, one more.
        let most = MESSAGES * (BYTES as u64 / u64::from(limits::PART_BYTES) + 1);
        assert!(parts <= most, "{parts} parts, {at_once} bytes at once");
    }
}
