//! The signature of a request, after Standard Webhooks: HMAC-SHA256 over id, time and body, in three headers. A receiver
//! that checks it knows who sent the body, that nobody altered it, and, by the time, that it is not an old one again.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, Mac as _};
use sha2::Sha256;

/// Of a secret that is given as the standard writes it: base64 behind this.
const PREFIX: &str = "whsec_";

/// The value of `webhook-signature`: one signature for each secret in `secrets`, which are separated by blanks, so that
/// a receiver can change over from one to the next.
pub(super) fn signature(secrets: &str, id: &str, seconds: u64, body: &[u8]) -> String {
    let one = |secret: &str| {
        let mut mac = Hmac::<Sha256>::new_from_slice(&key(secret))
            .expect("a key of HMAC may have any length");
        mac.update(format!("{id}.{seconds}.").as_bytes());
        mac.update(body);
        format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
    };
    secrets.split_whitespace().map(one).collect::<Vec<_>>().join(" ")
}

/// The bytes that a secret stands for: what base64 says behind `whsec_`, else the text itself.
fn key(secret: &str) -> Vec<u8> {
    let decoded = secret.strip_prefix(PREFIX).and_then(|text| STANDARD.decode(text).ok());
    decoded.unwrap_or_else(|| secret.as_bytes().to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the standard's own libraries.
    #[test]
    fn signs_as_the_standard_does() {
        let signed = signature(
            "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
            "msg_p5jXN8AQM9LWM0D4loKWxJek",
            1_614_265_330,
            br#"{"test": 2432232314}"#,
        );
        assert_eq!(signed, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn every_secret_signs() {
        let both = signature("old new", "id", 1, b"body");
        let old = signature("old", "id", 1, b"body");
        let new = signature("new", "id", 1, b"body");
        assert_eq!(both, format!("{old} {new}"));
        assert_ne!(old, new);
        assert_ne!(old, signature("old", "id", 2, b"body"));
    }
}
