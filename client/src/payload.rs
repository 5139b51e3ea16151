//! Values of users on the wire: JSON by default, text where the sender said so. It never looks into other types.

use bytes::Bytes;
use pinrail_proto::v1::Payload;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Content type of everything that the library encodes.
pub const JSON: &str = "application/json";

/// Why a value could not be encoded or decoded.
#[derive(Debug, thiserror::Error)]
pub enum PayloadError {
    /// serde refused the value or the text.
    #[error("not the JSON that was expected: {0}")]
    Json(#[from] serde_json::Error),
    /// Neither JSON nor text.
    #[error("content type {0:?} cannot be decoded; JSON and text can")]
    ContentType(String),
}

/// Encodes a value as JSON.
///
/// # Errors
/// When serde cannot represent it.
pub fn encode<T: Serialize + ?Sized>(value: &T) -> Result<Payload, PayloadError> {
    Ok(Payload { content_type: JSON.to_owned(), data: Bytes::from(serde_json::to_vec(value)?) })
}

/// Decodes JSON, or text as a JSON string; an absent or empty payload is `null`.
///
/// # Errors
/// When the type or the text does not fit.
pub fn decode<T: DeserializeOwned>(payload: Option<&Payload>) -> Result<T, PayloadError> {
    let Some(payload) = payload.filter(|payload| !payload.data.is_empty()) else {
        return Ok(serde_json::from_value(serde_json::Value::Null)?);
    };
    if payload.content_type.starts_with("text/") {
        let text = String::from_utf8_lossy(&payload.data).into_owned();
        return Ok(serde_json::from_value(serde_json::Value::String(text))?);
    }
    if payload.content_type.is_empty() || payload.content_type.starts_with(JSON) {
        return Ok(serde_json::from_slice(&payload.data)?);
    }
    Err(PayloadError::ContentType(payload.content_type.clone()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_text_and_nothing_decode() {
        let value = serde_json::json!({"a": [1, 2.5, "x"]});
        let payload = encode(&value).expect("a JSON value encodes");
        assert_eq!(decode::<serde_json::Value>(Some(&payload)).expect("JSON"), value);
        let text = Payload { content_type: "text/plain".into(), data: "hi".into() };
        assert_eq!(decode::<String>(Some(&text)).expect("text"), "hi");
        assert_eq!(decode::<Option<u8>>(None).expect("nothing is null"), None);
        let image = Payload { content_type: "image/png".into(), data: "x".into() };
        assert!(decode::<String>(Some(&image)).is_err());
    }
}
