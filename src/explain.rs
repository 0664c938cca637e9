//! `tailwire explain`: why one request does or does not continue another, for whoever wonders why a client does not chain.
//!
//! The verdict is the heart's own plan for the two (`explain/verdict.rs`); the rest only finds words for it. Reads files,
//! sends nothing, and prints paths, sizes and types; content only where it is asked for.

mod answer;
mod differ;
mod echo;
mod place;
mod read;
mod report;
mod verdict;

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use self::answer::Answer;
use self::place::Place;
use self::read::Side;
pub use self::verdict::Verdict;
use crate::args::ExplainArgs;
use crate::proto::digest::Key;
use crate::proto::session::profile::Profile;
use crate::proto::transcript::fields::Field;
use crate::proto::transcript::plan::Grade;

/// No digest leaves this process, so its key need not be random.
const KEY: Key = Key::new([7; 32]);

/// Excerpts are cut to so many characters.
const EXCERPT: usize = 72;

/// What the proxy would be set to.
#[derive(Debug, Clone)]
pub struct Options {
    /// The provider's rules.
    pub profile: Profile,
    /// `reasoning = "strict"`.
    pub strict: bool,
}

/// A file that holds nothing to explain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// Not the body of a request.
    #[error("it is not one JSON object in UTF-8")]
    NoObject,
    /// Neither a response nor the events of one.
    #[error("it is no answer of the Responses API or of Chat Completions, as JSON or as a stream")]
    NoAnswer,
    /// The answer is no answer to that request.
    #[error("it is an answer of Chat Completions to a request of the Responses API")]
    OtherApi,
}

/// Why `explain` could not say anything.
#[derive(Debug, thiserror::Error)]
pub enum ExplainError {
    /// A file that is not to be had.
    #[error("{}: {error}", path.display())]
    NoFile {
        /// The file.
        path: PathBuf,
        /// Why not.
        error: io::Error,
    },
    /// A file that holds something else.
    #[error("{}: {error}", path.display())]
    NoData {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        error: Unreadable,
    },
    /// The answer cannot be printed.
    #[error(transparent)]
    Output(#[from] io::Error),
}

/// Reads the files and says on stdout how they stand to each other; whether the later continues the earlier.
///
/// # Errors
/// A file that cannot be read, or is not what it should be.
pub fn run(arguments: &ExplainArgs) -> Result<bool, ExplainError> {
    let file = |path: &Path| {
        std::fs::read(path).map_err(|error| ExplainError::NoFile { path: path.to_owned(), error })
    };
    let fails = |path: &Path| {
        let path = path.to_owned();
        move |error| ExplainError::NoData { path, error }
    };
    let options = Options { profile: arguments.profile.clone(), strict: arguments.strict };
    let a = Side::read(&file(&arguments.a)?, &options).map_err(fails(&arguments.a))?;
    let b = Side::read(&file(&arguments.b)?, &options).map_err(fails(&arguments.b))?;
    let answer = match &arguments.response {
        Some(path) => Some(Answer::read(&file(path)?, &a).map_err(fails(path))?),
        None => None,
    };
    let explanation = explain(&a, &b, answer, &options);
    let text = match arguments.json {
        true => explanation.json(arguments.show),
        false => explanation.text(arguments.show),
    };
    match io::stdout().write_all(text.as_bytes()) {
        // A reader that closes early, such as `head`, is not an error.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(explanation.verdict.continues()),
    }
}

/// Two requests and, if it is known, the answer to the first, explained.
///
/// # Errors
/// One of the three is not what it should be.
pub fn compare(
    a: &[u8],
    b: &[u8],
    response: Option<&[u8]>,
    options: &Options,
) -> Result<Explanation, Unreadable> {
    let (a, b) = (Side::read(a, options)?, Side::read(b, options)?);
    let answer = response.map(|bytes| Answer::read(bytes, &a)).transpose()?;
    Ok(explain(&a, &b, answer, options))
}

/// How two requests stand to each other.
#[derive(Debug, Clone)]
pub struct Explanation {
    /// The heart's plan for the later one.
    pub verdict: Verdict,
    /// Items of the earlier request, of its answer's echo, and of the later request.
    pub items: (usize, usize, usize),
    /// The answer was not given; what the later request repeats was taken for it.
    pub assumed: bool,
    /// The later one is a chat request.
    chat: bool,
    /// Where it fails.
    place: Option<Place>,
    /// What else is to be known.
    notes: Vec<String>,
}

impl Explanation {
    /// Where it fails, as a path into the later request; into the response, for what is missing from the request.
    pub fn path(&self) -> Option<&str> {
        self.place.as_ref().map(|place| &*place.path)
    }
}

fn explain(a: &Side, b: &Side, answer: Option<Answer>, options: &Options) -> Explanation {
    let assumed = answer.is_none();
    let answer = answer.unwrap_or_else(|| Answer::assumed(verdict::repeated(a, b)));
    let verdict = verdict::verdict(a, b, &answer, options);
    let place = if a.turn.is_ok() && answer.obstacle.is_none() || matches!(verdict, Verdict::Http(_)) {
        place::place(a, b, &answer, &verdict)
    } else {
        None
    };
    let notes = notes(a, b, &answer, &verdict);
    let items = (a.items.len(), answer.items.len(), b.items.len());
    Explanation { verdict, items, assumed, chat: b.chat, place, notes }
}

fn notes(a: &Side, b: &Side, answer: &Answer, verdict: &Verdict) -> Vec<String> {
    let mut notes = Vec::new();
    if let Err(reason) = &a.turn {
        notes.push(format!("A itself goes over HTTP ({reason}), so that nothing of it can be continued"));
    }
    if let Some(obstacle) = answer.obstacle {
        notes.push(format!("the response to A cannot be continued: {obstacle}"));
    }
    if let Verdict::Delta { grade: Grade::Visible, .. } = verdict {
        notes
            .push("reasoning that B does not repeat stays upstream, and is billed as input there".to_owned());
    }
    if !verdict.continues() && verdict::skips(a, b) {
        notes.push(
            "B holds more than one answer after A; compare it with the request just before it".to_owned(),
        );
    }
    let free: Vec<String> = place::changed(a, b, Field::Free).into_iter().map(|place| place.path).collect();
    if !free.is_empty() {
        notes.push(format!("changed, as it may (settings are sent again each turn): {}", free.join(", ")));
    }
    notes
}
