//! Payloads from the command line: `JSON`, `@FILE` or `-` for stdin.

use std::io::Read as _;
use std::path::Path;

use pinrail_proto::{limits, reason, v1};

use super::problem::{self, Problem};

/// What a value may be when nobody says its type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Untyped {
    /// It must be JSON.
    Json,
    /// JSON if it parses, else text.
    JsonOrText,
}

/// Reads a payload. `what` names it in errors.
pub(super) fn payload(
    what: &str,
    argument: &str,
    content_type: Option<&str>,
    untyped: Untyped,
) -> Result<v1::Payload, Problem> {
    let (data, from_file) = match argument {
        "-" => (stdin(what)?, None),
        _ => match argument.strip_prefix('@') {
            Some(path) => (file(what, path)?, Some(path)),
            None => (argument.as_bytes().to_vec(), None),
        },
    };
    if data.len() > limits::PAYLOAD_BYTES {
        let name = reason::LIMIT_EXCEEDED.name;
        let message = format!("{what}: {} bytes; at most {}", data.len(), limits::PAYLOAD_BYTES);
        return Err(Problem::new(name, problem::exit_code(name), message));
    }
    let content_type = match content_type.or_else(|| from_file.and_then(by_extension)) {
        Some(content_type) => content_type.to_owned(),
        None => guess(what, &data, untyped)?,
    };
    if content_type.starts_with("application/json") {
        check_json(what, &data)?;
    }
    Ok(v1::Payload { content_type, data: data.into() })
}

fn by_extension(path: &str) -> Option<&'static str> {
    match Path::new(path).extension()?.to_str()? {
        "json" => Some("application/json"),
        "txt" => Some("text/plain; charset=utf-8"),
        "md" => Some("text/markdown; charset=utf-8"),
        _ => None,
    }
}

fn guess(what: &str, data: &[u8], untyped: Untyped) -> Result<String, Problem> {
    match untyped {
        Untyped::Json => check_json(what, data).map(|()| "application/json".to_owned()),
        Untyped::JsonOrText if check_json(what, data).is_ok() => Ok("application/json".to_owned()),
        Untyped::JsonOrText if std::str::from_utf8(data).is_ok() => {
            Ok("text/plain; charset=utf-8".to_owned())
        }
        Untyped::JsonOrText => Ok("application/octet-stream".to_owned()),
    }
}

fn check_json(what: &str, data: &[u8]) -> Result<(), Problem> {
    let parsed: Result<serde::de::IgnoredAny, _> = serde_json::from_slice(data);
    parsed.map(drop).map_err(|error| {
        Problem::usage(format!("{what} is no JSON: {error}"))
            .next("a file: @FILE; another type: --content-type text/plain")
    })
}

fn file(what: &str, path: &str) -> Result<Vec<u8>, Problem> {
    let error = |cause: std::io::Error| Problem::usage(format!("{what}: {path}: {cause}"));
    bounded(std::fs::File::open(path).map_err(error)?).map_err(error)
}

fn stdin(what: &str) -> Result<Vec<u8>, Problem> {
    bounded(std::io::stdin().lock()).map_err(|cause| Problem::usage(format!("{what}: {cause}")))
}

/// One byte more than allowed is enough to know.
fn bounded(reader: impl std::io::Read) -> std::io::Result<Vec<u8>> {
    let mut data = Vec::new();
    reader.take(limits::PAYLOAD_BYTES as u64 + 1).read_to_end(&mut data)?;
    Ok(data)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn malformed_json_is_refused() {
        let problem = payload("--input", "{broken", None, Untyped::Json).expect_err("no JSON");
        assert_eq!((problem.reason.as_str(), problem.exit), ("INVALID_REQUEST", 2));
        let problem = payload("--input", "{", Some("application/json"), Untyped::JsonOrText);
        assert!(problem.is_err());
    }

    #[test]
    fn types_follow_content_and_name() {
        let kind = |text: &str| {
            payload("VALUE", text, None, Untyped::JsonOrText).expect("a payload").content_type
        };
        assert_eq!(kind("{\"a\":1}"), "application/json");
        assert_eq!(kind("plain words"), "text/plain; charset=utf-8");
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("note.md");
        std::fs::write(&path, "# hi").expect("a file");
        assert_eq!(kind(&format!("@{}", path.display())), "text/markdown; charset=utf-8");
    }

    #[test]
    fn too_much_is_refused_before_it_is_sent() {
        let text = "x".repeat(limits::PAYLOAD_BYTES + 1);
        let problem = payload("VALUE", &text, None, Untyped::JsonOrText).expect_err("too much");
        assert_eq!(problem.reason, "LIMIT_EXCEEDED");
    }
}
