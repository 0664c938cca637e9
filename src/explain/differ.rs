//! The first place where two items differ, for the eye: a path and what happened there.
//!
//! Not a judge: whether two items count as the same is said by the heart's digests. Asked only about items that do not, and
//! looks where those look: key order, white space, escapes and null members are no differences.

use std::borrow::Cow;

use crate::proto::wire::json::{self, Numbers};
use crate::proto::wire::object::Fields;

/// A difference between an earlier item and a later one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Difference {
    /// Where in the item, such as `content[0].text`; empty for the whole.
    pub(super) path: String,
    /// What happened there, without content.
    pub(super) what: String,
    /// What stood there before and stands there now, as JSON or as text from the first difference on.
    pub(super) shown: (String, String),
}

/// The first difference between two items; `None` if a person would find none either.
pub(super) fn items(earlier: &str, later: &str) -> Option<Difference> {
    let (Ok(a), Ok(b)) = (Fields::read(earlier), Fields::read(later)) else {
        return values(String::new(), earlier, later, LETTERS);
    };
    let names = || names(&a, &b);
    let carriers = ["id", "status"];
    // For most types id and status carry no content; where they do, nothing else differs.
    let said = names().filter(|name| !carriers.contains(name)).find_map(|name| member(&a, &b, name));
    said.or_else(|| names().filter(|name| carriers.contains(name)).find_map(|name| member(&a, &b, name)))
}

/// The first difference between a call and its echo, where only what was called counts.
pub(super) fn call(said: &str, repeated: &str) -> Option<Difference> {
    let (a, b) = (Fields::read(said).ok()?, Fields::read(repeated).ok()?);
    ["type", "call_id", "name", "arguments", "input"].into_iter().find_map(|name| member(&a, &b, name))
}

/// The members of both, in the order of the earlier, then what is new.
fn names<'a>(a: &'a Fields<'_>, b: &'a Fields<'_>) -> impl Iterator<Item = &'a str> {
    let new = b.iter().map(|(name, _)| name).filter(|name| a.value(name).is_none());
    a.iter().map(|(name, _)| name).chain(new)
}

fn member(a: &Fields<'_>, b: &Fields<'_>, name: &str) -> Option<Difference> {
    let (earlier, later) = match (a.value(name), b.value(name)) {
        // A missing type is said by the other members.
        (Some(_), None) | (None, Some(_)) if name == "type" && same_kind(a, b) => return None,
        (Some(earlier), Some(later)) => (earlier, later),
        (earlier, later) => return one_sided(name.to_owned(), earlier, later),
    };
    match name {
        "content" => {
            let role = a.string("role").unwrap_or_default();
            values(
                name.to_owned(),
                &parts(earlier, &role),
                &parts(later, &role),
                Rules { sparse: true, ..LETTERS },
            )
        }
        "arguments" => match (json::string(earlier), json::string(later)) {
            (Some(x), Some(y)) if is_json(&x) && is_json(&y) => {
                values(name.to_owned(), &x, &y, Rules { numbers: Numbers::Double, ..LETTERS })
            }
            _ => values(name.to_owned(), earlier, later, LETTERS),
        },
        _ => values(name.to_owned(), earlier, later, LETTERS),
    }
}

/// Both are messages, whether they say so or not.
fn same_kind(a: &Fields<'_>, b: &Fields<'_>) -> bool {
    let message = |item: &Fields<'_>| match item.string("type") {
        Some(kind) => kind == "message",
        None => item.value("role").is_some(),
    };
    message(a) && message(b)
}

/// A string is the list of one text part.
fn parts<'a>(content: &'a str, role: &str) -> Cow<'a, str> {
    if !content.starts_with('"') {
        return Cow::Borrowed(content);
    }
    let kind = if role == "assistant" { "output_text" } else { "input_text" };
    Cow::Owned(format!(r#"[{{"type":"{kind}","text":{content}}}]"#))
}

fn is_json(text: &str) -> bool {
    text.starts_with(['{', '[']) && serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok()
}

/// What is no difference.
#[derive(Clone, Copy)]
struct Rules {
    /// A null member of the outermost objects, or none.
    sparse: bool,
    /// How numbers compare.
    numbers: Numbers,
}

const LETTERS: Rules = Rules { sparse: false, numbers: Numbers::Exact };

/// The first difference of two JSON values.
fn values(path: String, earlier: &str, later: &str, rules: Rules) -> Option<Difference> {
    let (earlier, later) = (earlier.trim(), later.trim());
    match (earlier.as_bytes().first()?, later.as_bytes().first()?) {
        (b'{', b'{') => objects(&path, earlier, later, rules),
        (b'[', b'[') => lists(&path, earlier, later, rules),
        (b'"', b'"') => strings(path, earlier, later),
        (x, y) => {
            if same(earlier, later, rules.numbers) {
                return None;
            }
            let (was, is) = (kind(*x), kind(*y));
            let what = if was == is { format!("is another {was}") } else { format!("was {was}, is {is}") };
            Some(Difference { path, what, shown: (earlier.to_owned(), later.to_owned()) })
        }
    }
}

fn objects(path: &str, earlier: &str, later: &str, rules: Rules) -> Option<Difference> {
    let (a, b) = (json::members(earlier).ok()?, json::members(later).ok()?);
    let value = |members: &[json::Member], text: &str, name: &str| {
        let value = json::find(members, name).map(|member| text[member.value.clone()].to_owned());
        value.filter(|value| !(rules.sparse && value == "null"))
    };
    let names = a.iter().chain(&b).map(|member| &*member.key);
    names.into_iter().find_map(|name| {
        let path = if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
        match (value(&a, earlier, name), value(&b, later, name)) {
            (Some(x), Some(y)) => values(path, &x, &y, Rules { sparse: false, ..rules }),
            (x, y) => one_sided(path, x.as_deref(), y.as_deref()),
        }
    })
}

fn lists(path: &str, earlier: &str, later: &str, rules: Rules) -> Option<Difference> {
    let (a, b) = (json::elements(earlier).ok()?, json::elements(later).ok()?);
    let pairs = a.iter().zip(&b).enumerate();
    let at = |n: usize| format!("{path}[{n}]");
    let differs = |(n, (x, y)): (usize, (&std::ops::Range<usize>, &std::ops::Range<usize>))| {
        values(at(n), &earlier[x.clone()], &later[y.clone()], rules)
    };
    pairs.into_iter().find_map(differs).or_else(|| {
        let common = a.len().min(b.len());
        let (x, y) = (a.get(common).map(|x| &earlier[x.clone()]), b.get(common).map(|y| &later[y.clone()]));
        one_sided(at(common), x, y)
    })
}

fn strings(path: String, earlier: &str, later: &str) -> Option<Difference> {
    let (Some(a), Some(b)) = (json::string(earlier), json::string(later)) else {
        return (earlier != later).then(|| Difference {
            path,
            what: "is another string".to_owned(),
            shown: (earlier.to_owned(), later.to_owned()),
        });
    };
    let mut what = texts(&a, &b)?;
    let at = a.chars().zip(b.chars()).take_while(|(x, y)| x == y).count();
    let short = |text: &str| text.chars().skip(at.saturating_sub(LEAD)).collect::<String>();
    if a.chars().count().max(b.chars().count()) <= 1 {
        what = "is another string".to_owned();
    }
    Some(Difference { path, what, shown: (short(&a), short(&b)) })
}

/// Characters shown before the first difference.
const LEAD: usize = 12;

/// How two texts differ, without saying what they say; `None` if they do not.
pub(super) fn texts(earlier: &str, later: &str) -> Option<String> {
    if earlier == later {
        return None;
    }
    let (was, is) = (earlier.chars().count(), later.chars().count());
    if earlier.trim() == later.trim() {
        return Some(format!("white space at an end changed ({was} characters before, {is} now)"));
    }
    let at = earlier.chars().zip(later.chars()).take_while(|(x, y)| x == y).count();
    Some(match at {
        at if at == was => format!("{} characters were added after its {was}", is - was),
        at if at == is => format!("its last {} of {was} characters are missing", was - is),
        at => format!("differs from character {} on ({was} characters before, {is} now)", at + 1),
    })
}

fn one_sided(path: String, earlier: Option<&str>, later: Option<&str>) -> Option<Difference> {
    let what = match (earlier, later) {
        (Some(_), None) => "is missing",
        (None, Some(_)) => "was added",
        _ => return None,
    };
    let shown = (earlier.unwrap_or_default().to_owned(), later.unwrap_or_default().to_owned());
    Some(Difference { path, what: what.to_owned(), shown })
}

fn same(earlier: &str, later: &str, numbers: Numbers) -> bool {
    let form = |text: &str| {
        let mut out = Vec::new();
        json::canonical(text, numbers, false, &mut out).ok().map(|()| out)
    };
    earlier == later || form(earlier).is_some_and(|earlier| Some(earlier) == form(later))
}

fn kind(first: u8) -> &'static str {
    match first {
        b'{' => "an object",
        b'[' => "a list",
        b'"' => "a string",
        b't' | b'f' => "true or false",
        b'n' => "null",
        _ => "number",
    }
}

#[cfg(test)]
mod tests;
