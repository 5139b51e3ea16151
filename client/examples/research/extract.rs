//! The embedded answerer: picks the sentences that say most about the question. No network, no model, no randomness.

use std::collections::{BTreeMap, BTreeSet};

/// Shorter words say little.
const WORD_CHARS: usize = 3;
/// Words that say nothing about a topic.
const STOP_WORDS: &[&str] = &[
    "about", "after", "also", "and", "any", "are", "because", "been", "before", "but", "can",
    "cannot", "could", "did", "does", "for", "from", "had", "has", "have", "how", "into", "its",
    "like", "may", "more", "most", "must", "not", "only", "other", "over", "should", "such",
    "than", "that", "the", "their", "them", "then", "there", "these", "they", "this", "those",
    "was", "were", "what", "when", "where", "which", "while", "who", "why", "will", "with",
    "would", "you", "your",
];

/// A sentence and where it comes from.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Sentence {
    pub(crate) text: String,
    pub(crate) document: String,
}

/// Splits prose at the ends of its sentences.
pub(crate) fn sentences(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut rest = text.trim();
    while let Some(end) = sentence_end(rest) {
        found.push(rest[..end].trim().to_owned());
        rest = rest[end..].trim_start();
    }
    if !rest.is_empty() {
        found.push(rest.to_owned());
    }
    found
}

/// Behind a full stop, question or exclamation mark that is followed by a space and a capital letter.
fn sentence_end(text: &str) -> Option<usize> {
    let ends = text.match_indices(['.', '?', '!']).map(|(at, mark)| at + mark.len());
    ends.filter(|end| *end < text.len()).find(|end| {
        let mut after = text[*end..].chars();
        after.next().is_some_and(char::is_whitespace)
            && after.next().is_some_and(char::is_uppercase)
    })
}

/// The words of a text that say what it is about, without their endings.
pub(crate) fn keywords(text: &str) -> Vec<String> {
    let words = text.split(|c: char| !c.is_alphanumeric()).map(str::to_lowercase);
    let words = words.filter(|word| word.chars().count() >= WORD_CHARS);
    let mut seen = BTreeSet::new();
    words
        .filter(|word| !STOP_WORDS.contains(&word.as_str()))
        .filter(|word| seen.insert(word.clone()))
        .collect()
}

/// Two forms of one word look alike: without the longest ending that leaves enough of it.
fn stem(word: &str) -> &str {
    let endings = ["ations", "ation", "ings", "ing", "ies", "ed", "es", "s", "e", "y"];
    let stems = endings.iter().filter_map(|ending| word.strip_suffix(ending));
    let enough = stems.filter(|stem| stem.chars().count() >= WORD_CHARS);
    enough.min_by_key(|stem| stem.len()).unwrap_or(word)
}

fn stems(text: &str) -> BTreeSet<String> {
    keywords(text).iter().map(|word| stem(word).to_owned()).collect()
}

/// The `count` sentences that say most about the question, in the order in which they were given. A sentence also
/// counts for what its neighbours say: reasons stand beside what they explain.
pub(crate) fn best(question: &str, sentences: &[Sentence], count: usize) -> Vec<Sentence> {
    let wanted = stems(question);
    let held: Vec<BTreeSet<String>> = sentences.iter().map(|one| stems(&one.text)).collect();
    let mut frequency: BTreeMap<&str, u32> = BTreeMap::new();
    for word in held.iter().flatten().filter(|word| wanted.contains(*word)) {
        *frequency.entry(word).or_default() += 1;
    }
    // A word that is in few sentences says more.
    let weigh = |word: &String| 1_000 / frequency.get(word.as_str()).copied().unwrap_or(1);
    let own: Vec<u32> =
        held.iter().map(|words| words.intersection(&wanted).map(weigh).sum()).collect();
    let beside = |at: usize, other: Option<usize>| {
        let other = other.filter(|other| {
            sentences.get(*other).is_some_and(|one| one.document == sentences[at].document)
        });
        other.map_or(0, |other| own[other])
    };
    let score =
        |at: usize| 3 * own[at] + 2 * beside(at, at.checked_sub(1)) + beside(at, Some(at + 1));
    let mut ranked: Vec<usize> = (0..own.len()).filter(|at| score(*at) > 0).collect();
    ranked.sort_by_key(|at| (std::cmp::Reverse(score(*at)), *at));
    ranked.truncate(count);
    ranked.sort_unstable();
    ranked.into_iter().map(|at| sentences[at].clone()).collect()
}

/// Answers as the prompt asks: it says how many sentences at most, and whether to cite.
pub(crate) fn answer(prompt: &str, question: &str, notes: &[Sentence]) -> String {
    let chosen = best(question, notes, most_sentences(prompt));
    if chosen.is_empty() {
        return "The documents do not answer that.".to_owned();
    }
    let cite = prompt.contains("cite");
    let write = |one: &Sentence| {
        if cite { format!("{} [{}]", one.text, one.document) } else { one.text.clone() }
    };
    chosen.iter().map(write).collect::<Vec<_>>().join(" ")
}

/// From "at most N sentences"; 2 where the prompt does not say.
fn most_sentences(prompt: &str) -> usize {
    let words: Vec<&str> = prompt.split_whitespace().collect();
    let said = words
        .windows(4)
        .find(|four| four[0] == "at" && four[1] == "most" && four[3].starts_with("sentence"));
    said.and_then(|four| four[2].parse().ok()).unwrap_or(2)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn notes() -> Vec<Sentence> {
        let text = "Leases expire. A fencing token grows with every lease. Trees are green. \
                    The storage refuses an old token.";
        let note = |text: String| Sentence { text, document: "leases".into() };
        sentences(text).into_iter().map(note).collect()
    }

    #[test]
    fn sentences_end_before_capital_letters_only() {
        assert_eq!(
            sentences("It is 1.5 s. Then e.g. this. End"),
            ["It is 1.5 s.", "Then e.g. this.", "End"]
        );
    }

    #[test]
    fn the_sentences_about_the_question_are_chosen() {
        let chosen = best("What does the storage do with old tokens?", &notes(), 1);
        assert_eq!(chosen[0].text, "The storage refuses an old token.");
        assert!(best("Who won the match?", &notes(), 2).is_empty());
    }

    #[test]
    fn the_prompt_decides_length_and_sources() {
        let (v1, v2) = (include_str!("prompts/system-v1.md"), include_str!("prompts/system-v2.md"));
        let plain = answer(v1, "fencing token lease", &notes());
        let cited = answer(v2, "fencing token lease", &notes());
        assert!(!plain.contains('['), "{plain}");
        assert_eq!(sentences(&plain).len(), 2, "{plain}");
        assert_eq!(cited.matches("[leases]").count(), 3, "{cited}");
    }
}
