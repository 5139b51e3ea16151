//! Memory over HTTP: one key and its history, what a scope sees, how two differ, and what changes.

use axum::http::StatusCode;
use axum::routing::{delete, get, put};
use pinrail_proto::v1;
use pinrail_proto::v1::memory_service_server::MemoryService as _;
use serde_json::json;

use super::api::{Answer, shown, shown_as, streamed};
use super::body::AnyJson;
use super::call::Call;
use super::openapi::{Operation, of, read, stream, write};
use crate::service::Memories;

pub(super) const OPERATIONS: &[Operation] = &[
    Operation {
        params: &["namespace", "timeout", "local", "bundle", "run", "at_revision"],
        ..read(
            || get(show),
            "/v1/agents/{agent}/memory/{*key}",
            "getMemory",
            "A value of a bundle's memory, or as a run sees it. The key may have slashes.",
            &[("200", of::<v1::GetMemoryResponse>), ("404", of::<v1::GetMemoryResponse>)],
        )
    },
    Operation {
        params: &["namespace", "timeout", "bundle", "ttl", "expected_revision"],
        body: Some(|| json!({ "description": "Any JSON, at most 2 MiB." })),
        ..write(
            || put(store),
            "put",
            "/v1/agents/{agent}/memory/{*key}",
            "putMemory",
            "Write to the newest layer of a bundle.",
            &[("200", of::<v1::PutMemoryResponse>)],
        )
    },
    Operation {
        params: &["namespace", "timeout", "bundle", "expected_revision"],
        ..write(
            || delete(remove),
            "delete",
            "/v1/agents/{agent}/memory/{*key}",
            "deleteMemory",
            "Delete from the newest layer of a bundle.",
            &[("200", of::<v1::DeleteMemoryResponse>)],
        )
    },
    Operation {
        params: &["namespace", "timeout", "local", "bundle", "run", "page_size", "page_token"],
        ..read(
            || get(history),
            "/v1/agents/{agent}/memory-history/{*key}",
            "getMemoryHistory",
            "The versions of a key that a bundle's memory sees, or a run, newest first.",
            &[("200", of::<v1::GetMemoryHistoryResponse>)],
        )
    },
    Operation {
        params: &[
            "namespace",
            "timeout",
            "local",
            "bundle",
            "run",
            "prefix",
            "keys_only",
            "at_revision",
            "page_size",
            "page_token",
        ],
        ..read(
            || get(list),
            "/v1/agents/{agent}/memory",
            "listMemory",
            "What a bundle's memory holds, or as a run sees it, by key; a page may be short and have others behind it.",
            &[("200", of::<v1::ListMemoryResponse>)],
        )
    },
    Operation {
        params: &[
            "namespace",
            "timeout",
            "local",
            "from",
            "to",
            "prefix",
            "late",
            "keys_only",
            "page_size",
            "page_token",
        ],
        ..read(
            || get(diff),
            "/v1/agents/{agent}/memory-diff",
            "diffMemory",
            "The keys of which two bundles or layers see different versions; a page may be short and have others behind it.",
            &[("200", of::<v1::DiffMemoryResponse>)],
        )
    },
    Operation {
        params: &["namespace", "timeout", "bundle", "run", "prefix", "after_revision"],
        ..stream(
            || get(changes),
            "/v1/agents/{agent}/memory-changes",
            "watchMemory",
            "Server-sent events `change` with the versions written, `progress` without; ids are revisions, Last-Event-ID resumes.",
            &[("200", of::<v1::WatchMemoryResponse>)],
        )
    },
];

async fn show(call: Call) -> Answer {
    let request = v1::GetMemoryRequest {
        namespace: call.namespace(),
        agent_id: call.agent(),
        scope: call.scope()?,
        key: call.key(),
        at_revision: call.query.at_revision,
        read: call.read(),
    };
    let request = call.with(request);
    let answer = Memories(call.node).get_memory(request).await?.into_inner();
    Ok(shown_as(if answer.found { StatusCode::OK } else { StatusCode::NOT_FOUND }, &answer))
}

async fn store(call: Call, AnyJson(value): AnyJson) -> Answer {
    let request = v1::PutMemoryRequest {
        namespace: call.namespace(),
        agent_id: call.agent(),
        scope: call.scope()?,
        key: call.key(),
        value: Some(value),
        ttl: call.ttl(),
        expected_key_revision: call.query.expected_revision,
        options: Some(call.write(String::new())),
    };
    let request = call.with(request);
    let answer = Memories(call.node).put_memory(request).await?;
    Ok(shown(answer.get_ref()))
}

async fn remove(call: Call) -> Answer {
    let request = v1::DeleteMemoryRequest {
        namespace: call.namespace(),
        agent_id: call.agent(),
        scope: call.scope()?,
        key: call.key(),
        expected_key_revision: call.query.expected_revision,
        options: Some(call.write(String::new())),
    };
    let request = call.with(request);
    let answer = Memories(call.node).delete_memory(request).await?;
    Ok(shown(answer.get_ref()))
}

async fn history(call: Call) -> Answer {
    let request = v1::GetMemoryHistoryRequest {
        namespace: call.namespace(),
        agent_id: call.agent(),
        scope: call.scope()?,
        key: call.key(),
        page_size: call.query.page_size,
        page_token: call.query.page_token.clone(),
        read: call.read(),
    };
    let request = call.with(request);
    let answer = Memories(call.node).get_memory_history(request).await?;
    Ok(shown(answer.get_ref()))
}

async fn list(call: Call) -> Answer {
    let query = &call.query;
    let request = v1::ListMemoryRequest {
        namespace: call.namespace(),
        agent_id: call.agent(),
        scope: call.scope()?,
        prefix: query.prefix.clone(),
        at_revision: query.at_revision,
        page_size: query.page_size,
        page_token: query.page_token.clone(),
        keys_only: query.keys_only,
        read: call.read(),
    };
    let request = call.with(request);
    let answer = Memories(call.node).list_memory(request).await?;
    Ok(shown(answer.get_ref()))
}

async fn diff(call: Call) -> Answer {
    let [from, to] = call.sides()?;
    let query = &call.query;
    let request = v1::DiffMemoryRequest {
        namespace: call.namespace(),
        agent_id: call.agent(),
        from,
        to,
        prefix: query.prefix.clone(),
        late: query.late,
        keys_only: query.keys_only,
        page_size: query.page_size,
        page_token: query.page_token.clone(),
        read: call.read(),
    };
    let request = call.with(request);
    let answer = Memories(call.node).diff_memory(request).await?;
    Ok(shown(answer.get_ref()))
}

/// What a scope sees change; ids are revisions, so a reader that comes back misses nothing.
async fn changes(call: Call) -> Answer {
    let request = v1::WatchMemoryRequest {
        namespace: call.namespace(),
        agent_id: call.agent(),
        scope: call.scope()?,
        prefix: call.query.prefix.clone(),
        after_revision: call.resume()?,
    };
    let request = call.with(request);
    let changes = Memories(call.node).watch_memory(request).await?.into_inner();
    Ok(streamed(changes, |change| {
        (if change.versions.is_empty() { "progress" } else { "change" }, change.revision)
    }))
}
