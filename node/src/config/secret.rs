//! Secrets that a policy names and a node knows: they are never in the replicated state.

/// What a policy's `secret` begins with.
const FROM_ENVIRONMENT: &str = "env:";

/// Why there is no secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SecretError {
    #[error("a secret is named env:NAME")]
    NoReference,
    #[error("{0} is not set in this node's environment")]
    Unset(String),
}

/// The secret that a reference of the form `env:NAME` stands for on this node.
pub(crate) fn secret(reference: &str) -> Result<String, SecretError> {
    let name = reference.strip_prefix(FROM_ENVIRONMENT).ok_or(SecretError::NoReference)?;
    #[expect(clippy::disallowed_methods, reason = "the one place that looks a secret up")]
    let value = std::env::var(name).ok();
    value.filter(|it| !it.trim().is_empty()).ok_or_else(|| SecretError::Unset(name.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_looked_up_by_its_name() {
        assert_eq!(secret("PAGER"), Err(SecretError::NoReference));
        let unset = secret("env:PINRAIL_NO_SUCH_SECRET").unwrap_err();
        assert!(unset.to_string().starts_with("PINRAIL_NO_SUCH_SECRET is not set"), "{unset}");
        assert!(secret("env:PATH").is_ok());
    }
}
