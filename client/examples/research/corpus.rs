//! The documents, cut as the bundle's index version says, and the search over them (BM25).

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context as _;
use bm25::{Document, Language, SearchEngine, SearchEngineBuilder};
use serde::{Deserialize, Serialize};

use crate::extract::sentences;

/// Documents larger than this are cut off: a directory may hold anything.
const DOCUMENT_BYTES: usize = 1 << 20;
/// Documents that are read at most.
const DOCUMENTS: usize = 10_000;
/// Sentences of one window, and how many of them the next window repeats.
const WINDOW: usize = 3;
const OVERLAP: usize = 1;

/// A piece of a document that was found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Chunk {
    pub(crate) document: String,
    pub(crate) text: String,
    pub(crate) score: f32,
}

/// How documents are cut. A bundle names it in its index version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Chunking {
    Paragraphs,
    Windows,
}

impl Chunking {
    /// By an index version such as `2-windows`.
    pub(crate) fn of(version: &str) -> Option<Chunking> {
        match version.split_once('-')?.1 {
            "paragraphs" => Some(Chunking::Paragraphs),
            "windows" => Some(Chunking::Windows),
            _ => None,
        }
    }
}

/// All documents, and an index for each way to cut them that was asked for.
pub(crate) struct Library {
    documents: Vec<(String, String)>,
    indexes: Mutex<BTreeMap<Chunking, Arc<Index>>>,
}

struct Index {
    engine: SearchEngine<u32>,
    documents: Vec<String>,
}

macro_rules! embedded {
    ($($name:literal),*) => {
        vec![$(($name.to_owned(), include_str!(concat!("corpus/", $name, ".md")).to_owned())),*]
    };
}

impl Library {
    /// The corpus that comes with the example.
    pub(crate) fn embedded() -> Library {
        Library::new(embedded![
            "blue-green-deployment",
            "canary-and-shadow",
            "evaluating-agents",
            "idempotency-and-retries",
            "incident-response",
            "leases-and-fencing",
            "raft-consensus",
            "ranking-with-bm25",
            "vector-search",
            "write-ahead-log"
        ])
    }

    /// The .md and .txt files of a directory, not of those in it.
    pub(crate) fn read(directory: &Path) -> anyhow::Result<Library> {
        let what = || format!("documents in {}", directory.display());
        let mut paths = Vec::new();
        for entry in std::fs::read_dir(directory).with_context(what)? {
            let path = entry.with_context(what)?.path();
            if path.extension().is_some_and(|extension| extension == "md" || extension == "txt") {
                paths.push(path);
            }
        }
        paths.sort();
        let mut documents = Vec::new();
        for path in paths.into_iter().take(DOCUMENTS) {
            let bytes = std::fs::read(&path).with_context(|| path.display().to_string())?;
            let text = String::from_utf8_lossy(&bytes[..bytes.len().min(DOCUMENT_BYTES)]);
            let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            documents.push((name, text.into_owned()));
        }
        anyhow::ensure!(!documents.is_empty(), "no .md or .txt {}", what());
        Ok(Library::new(documents))
    }

    fn new(documents: Vec<(String, String)>) -> Library {
        Library { documents, indexes: Mutex::new(BTreeMap::new()) }
    }

    /// The best chunks for a query, the best first.
    pub(crate) fn search(&self, chunking: Chunking, query: &str, limit: usize) -> Vec<Chunk> {
        let index = self.index(chunking);
        let found = index.engine.search(query, limit).into_iter();
        found
            .map(|found| Chunk {
                document: index.documents[found.document.id as usize].clone(),
                text: found.document.contents,
                score: found.score,
            })
            .collect()
    }

    fn index(&self, chunking: Chunking) -> Arc<Index> {
        let mut indexes = self.indexes.lock().unwrap_or_else(PoisonError::into_inner);
        let index = indexes.entry(chunking).or_insert_with(|| Arc::new(self.build(chunking)));
        Arc::clone(index)
    }

    fn build(&self, chunking: Chunking) -> Index {
        let (mut chunks, mut documents) = (Vec::new(), Vec::new());
        for (name, text) in &self.documents {
            for chunk in cut(chunking, text) {
                let id = u32::try_from(chunks.len()).unwrap_or(u32::MAX);
                chunks.push(Document::new(id, chunk));
                documents.push(name.clone());
            }
        }
        let engine = SearchEngineBuilder::<u32>::with_documents(Language::English, chunks).build();
        Index { engine, documents }
    }
}

fn cut(chunking: Chunking, text: &str) -> Vec<String> {
    let paragraphs = text.split("\n\n").map(|part| part.split_whitespace().collect::<Vec<_>>());
    let paragraphs = paragraphs.map(|words| words.join(" "));
    let prose = paragraphs.filter(|part| !part.is_empty() && !part.starts_with('#'));
    match chunking {
        Chunking::Paragraphs => prose.collect(),
        Chunking::Windows => {
            let all: Vec<String> = prose.flat_map(|part| sentences(&part)).collect();
            let starts = (0..all.len()).step_by(WINDOW - OVERLAP);
            starts.map(|at| all[at..all.len().min(at + WINDOW)].join(" ")).collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_right_document_is_found_however_it_is_cut() {
        let library = Library::embedded();
        for chunking in [Chunking::Paragraphs, Chunking::Windows] {
            let found = library.search(chunking, "why must a failed fsync not be retried", 3);
            assert_eq!(found[0].document, "write-ahead-log", "{chunking:?}: {found:?}");
        }
    }

    #[test]
    fn index_versions_name_how_documents_are_cut() {
        assert_eq!(Chunking::of("1-paragraphs"), Some(Chunking::Paragraphs));
        assert_eq!(Chunking::of("2-windows"), Some(Chunking::Windows));
        assert_eq!(Chunking::of("latest"), None);
    }

    #[test]
    fn windows_overlap_by_a_sentence() {
        let windows = cut(Chunking::Windows, "# T\n\nOne a. Two b. Three c. Four d. Five e.");
        assert_eq!(windows[0], "One a. Two b. Three c.");
        assert!(windows[1].starts_with("Three c."));
    }
}
