//! The index against a naive scan of all heads, and its bookkeeping: what goes in comes out, and weighs nothing then.

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::proto::transcript::echo::Listener;

fn key() -> Key {
    Key::new([6; 32])
}

fn account(name: &str) -> Digest {
    let mut hasher = key().hasher("account");
    hasher.field(name.as_bytes());
    hasher.finish()
}

/// A request of these items; those in capitals are the model's, those after a `?` its reasoning.
fn request(of: &str, items: &[&str]) -> Request {
    let item = |text: &&str| match text.strip_prefix('?') {
        Some(blob) => format!(r#"{{"type":"reasoning","summary":[],"encrypted_content":"{blob}"}}"#),
        None if text.starts_with(char::is_uppercase) => {
            format!(r#"{{"role":"assistant","content":"{text}"}}"#)
        }
        None => format!(r#"{{"role":"user","content":"{text}"}}"#),
    };
    let items: Vec<String> = items.iter().map(item).collect();
    let body = format!(r#"{{"model":"m","input":[{}]}}"#, items.join(","));
    Request::parse(&key(), &account(of), Bytes::from(body), &[]).expect("a request")
}

/// A response that said these.
fn echo(said: &[&str]) -> Echo {
    let item = |text: &&str| match text.strip_prefix('?') {
        Some(blob) => format!(r#"{{"type":"reasoning","summary":[],"encrypted_content":"{blob}"}}"#),
        None => format!(r#"{{"type":"message","role":"assistant","content":"{text}"}}"#),
    };
    let items: Vec<String> = said.iter().map(item).collect();
    Listener::default().finish(&key(), Some(&format!("[{}]", items.join(",")))).expect("an echo")
}

fn insert(index: &mut Index, of: &str, items: &[&str], response: &str, said: &[&str]) -> HeadId {
    let past = Past::default();
    index.insert(account(of), &request(of, items), response.into(), echo(said), past).expect("a head")
}

fn best(index: &Index, request: &Request) -> Result<(HeadId, usize, Grade), Reason> {
    let found = index.continuations(&key(), request)?;
    Ok((found[0].head, found[0].new_from, found[0].grade))
}

#[test]
fn an_id_given_to_two_responses_names_the_later_one_only() {
    let mut index = Index::new(1 << 20);
    insert(&mut index, "t", &["a"], "r", &["X"]);
    let later = insert(&mut index, "t", &["a", "X", "b"], "r", &["Y"]);
    assert_eq!(index.len(), 1);
    assert_eq!(index.by_response(&account("t"), "r"), Some(later));
    assert!(best(&index, &request("t", &["a", "X", "c"])).is_err(), "what it once named is gone");
    let elsewhere = insert(&mut index, "u", &["a"], "r", &["X"]);
    assert_eq!(
        (index.len(), index.by_response(&account("u"), "r")),
        (2, Some(elsewhere)),
        "whose id it is counts"
    );
}

proptest! {
    /// Few words, so that histories coincide often.
    #[test]
    fn the_longest_match_is_that_of_a_naive_scan(
        heads in prop::collection::vec((prop::collection::vec(0..4usize, 1..6), 2..4usize), 1..MAX_CANDIDATES),
        asked in prop::collection::vec(prop::collection::vec(0..4usize, 1..9), 1..10),
        grown in prop::collection::vec((any::<prop::sample::Index>(), prop::collection::vec(0..4usize, 0..3)), 10),
    ) {
        const WORDS: [&str; 4] = ["a", "b", "X", "Y"];
        let text = |items: &[usize]| items.iter().map(|n| WORDS[*n]).collect::<Vec<_>>();
        let mut index = Index::new(1 << 20);
        let ids: Vec<HeadId> = heads.iter().enumerate().map(|(n, (items, said))| {
            insert(&mut index, "t", &text(items), &format!("r{n}"), &[WORDS[*said]])
        }).collect();
        // Half of what is asked goes on from some head.
        let from_heads = grown.iter().map(|(head, more)| {
            let (items, said) = head.get(&heads);
            items.iter().chain([said]).chain(more).copied().collect()
        });
        for asked in asked.into_iter().chain(from_heads) {
            let naive = heads.iter().zip(&ids).filter(|((items, said), _)| {
                let old: Vec<usize> = items.iter().chain([said]).copied().collect();
                asked.len() > old.len() && asked.starts_with(&old) && asked[old.len()..].iter().all(|n| *n < 2)
            });
            let naive = naive.max_by_key(|((items, _), id)| (items.len(), **id));
            let naive = naive.map(|((items, _), id)| (*id, items.len() + 1, Grade::Exact));
            prop_assert_eq!(best(&index, &request("t", &text(&asked))).ok(), naive, "{:?} of {:?}", asked, heads);
        }
    }

    #[test]
    fn f76_what_goes_in_comes_out_and_the_weight_is_bounded(
        heads in prop::collection::vec((0..3usize, prop::collection::vec(0..2usize, 1..5)), 1..40),
        capacity in prop_oneof![Just(0usize), Just(3000), Just(1 << 20)],
    ) {
        let mut index = Index::new(capacity);
        let mut ids = Vec::new();
        for (n, (tenant, items)) in heads.iter().enumerate() {
            let items: Vec<&str> = items.iter().map(|n| ["a", "b"][*n]).collect();
            ids.push(insert(&mut index, ["s", "t", "u"][*tenant], &items, &format!("r{n}"), &["X", "?think"]));
            prop_assert!(index.weight() <= capacity);
            prop_assert!(capacity > 3000 || index.len() < 10);
        }
        prop_assert!(capacity < 1 << 20 || index.len() == heads.len());
        ids.into_iter().for_each(|id| drop(index.remove(id)));
        prop_assert!(index.is_empty() && index.weight() == 0);
        prop_assert!(index.by_step.is_empty() && index.by_account.is_empty());
        prop_assert!(index.by_response.is_empty() && index.roots.is_empty());
    }
}

#[test]
fn the_least_recently_used_goes_first() {
    let mut index = Index::new(1 << 20);
    let old = insert(&mut index, "t", &["a"], "r0", &["X"]);
    let weight = index.weight();
    let mut index = Index::new(weight * 2);
    let used = insert(&mut index, "t", &["a"], "r0", &["X"]);
    let unused = insert(&mut index, "t", &["b"], "r1", &["X"]);
    assert_eq!(used, old, "numbers are an index's own");
    index.past(used, Arc::new([]));
    insert(&mut index, "t", &["c"], "r2", &["X"]);
    assert!(index.head(used).is_some() && index.head(unused).is_none());
}

#[test]
fn f35_f36_tenants_never_meet() {
    let mut index = Index::new(1 << 20);
    let mine = insert(&mut index, "s", &["a"], "r0", &["X"]);
    let next = ["a", "X", "b"];
    assert_eq!(best(&index, &request("s", &next)).map(|found| found.0), Ok(mine));
    assert_eq!(best(&index, &request("t", &next)), Err(Reason::FirstTurn));
    assert_eq!(index.home(&request("t", &next)), None);
    assert_eq!(
        (index.by_response(&account("s"), "r0"), index.by_response(&account("t"), "r0")),
        (Some(mine), None)
    );
    assert!(index.prefixes(&account("t")).is_empty() && index.prefixes(&account("s")).len() == 1);
}

#[test]
fn f07_reasoning_decides_between_heads_and_names_its_grade() {
    let mut index = Index::new(1 << 20);
    let thought = insert(&mut index, "t", &["a"], "r0", &["?one", "?two", "X"]);
    for (items, expected) in [
        (&["a", "?one", "?two", "X", "b"][..], Ok(Grade::Exact)),
        (&["a", "X", "?one", "?two", "b"], Ok(Grade::Exact)),
        (&["a", "?two", "X", "b"], Ok(Grade::Visible)),
        (&["a", "X", "b"], Ok(Grade::Visible)),
        (&["a", "?two", "?one", "X", "b"], Err(Reason::ReasoningAdded)),
        (&["a", "?one", "?one", "X", "b"], Err(Reason::ReasoningAdded)),
        (&["a", "?other", "X", "b"], Err(Reason::ReasoningAdded)),
        (&["?one", "a", "?two", "X", "b"], Err(Reason::ReasoningAdded)),
        (&["a", "?one", "?two", "X", "b", "?one"], Err(Reason::ReasoningAdded)),
        (&["a", "?one", "?two", "X"], Err(Reason::NothingNew)),
        (&["a", "?one", "?two", "b"], Err(Reason::EchoMissing)),
        (&["a", "?one", "?two", "Y", "b"], Err(Reason::EchoChanged)),
        (&["b", "X", "b"], Err(Reason::FirstTurn)),
        (&["a", "b"], Err(Reason::EchoMissing)),
    ] {
        let found = best(&index, &request("t", items));
        assert_eq!(
            found.map(|(head, _, grade)| (head, grade)),
            expected.map(|grade| (thought, grade)),
            "{items:?}"
        );
    }
    // A newer head that holds none of it is exact for a client that sends none.
    let plain = insert(&mut index, "t", &["a"], "r1", &["X"]);
    assert_eq!(best(&index, &request("t", &["a", "X", "b"])), Ok((plain, 2, Grade::Exact)));
    assert_eq!(
        best(&index, &request("t", &["a", "?one", "?two", "X", "b"])).map(|found| found.0),
        Ok(thought)
    );
    let newest = insert(&mut index, "t", &["a"], "r2", &["X"]);
    assert_eq!(
        best(&index, &request("t", &["a", "X", "b"])).map(|found| found.0),
        Ok(newest),
        "then the newest"
    );
}

#[test]
fn f01_a_changed_field_that_nobody_knows_breaks_the_chain_and_a_known_one_does_not() {
    let mut index = Index::new(1 << 20);
    insert(&mut index, "t", &["a"], "r0", &["X"]);
    let body = request("t", &["a", "X", "b"]).body().to_owned();
    for (member, expected) in [
        (r#""x_new":1"#, Some(Reason::FieldChanged)),
        (r#""tools":[{"type":"function"}]"#, None),
        (r#""top_p":0.5"#, None),
    ] {
        let body = Bytes::from(body.replacen('{', &format!("{{{member},"), 1));
        let asked = Request::parse(&key(), &account("t"), body, &[]).expect("a request");
        assert_eq!(best(&index, &asked).err(), expected, "{member}");
    }
}

#[test]
fn a_response_known_by_its_id_only_is_found_by_nothing_else() {
    let mut index = Index::new(1 << 20);
    let asked = request("t", &["a"]);
    let id = index.insert(account("t"), &asked, "r0".into(), echo(&["X"]), Past::anchored()).expect("a head");
    assert_eq!(best(&index, &request("t", &["a", "X", "b"])), Err(Reason::FirstTurn));
    assert_eq!((index.by_response(&account("t"), "r0"), index.home(&asked)), (Some(id), None));
    assert!(index.prefixes(&account("t")).is_empty());
    index.remove(id);
    assert_eq!((index.by_response(&account("t"), "r0"), index.weight()), (None, 0));
}

#[test]
fn reasons_tell_a_first_turn_from_an_edited_one() {
    let mut index = Index::new(1 << 20);
    insert(&mut index, "t", &["a", "b"], "r0", &["X"]);
    for (items, reason) in [
        (&["z"][..], Reason::FirstTurn),
        (&["a", "c", "X", "d"], Reason::HistoryChanged),
        (&["a", "b"], Reason::NothingNew),
        (&["a", "b", "X"], Reason::NothingNew),
    ] {
        assert_eq!(best(&index, &request("t", items)), Err(reason), "{items:?}");
    }
}

#[test]
fn f12_of_two_heads_alike_the_one_of_the_same_instructions_is_continued() {
    let of = |instructions: &str, items: &[&str]| {
        let body =
            request("t", items).body().replacen('{', &format!(r#"{{"instructions":"{instructions}","#), 1);
        Request::parse(&key(), &account("t"), Bytes::from(body), &[]).expect("a request")
    };
    let mut index = Index::new(1 << 20);
    let mut heads = Vec::new();
    for (n, role) in ["plan", "write", "plan", "read"].iter().enumerate() {
        let response = format!("r{n}").into();
        let past = Past::default();
        heads.push(
            index
                .insert(account("t"), &of(role, &["go"]), response, echo(&["?mine", "Sure."]), past)
                .expect("a head"),
        );
    }
    for (role, expected) in [("write", heads[1]), ("plan", heads[2]), ("read", heads[3]), ("new", heads[3])] {
        let found = best(&index, &of(role, &["go", "Sure.", "on"]));
        assert_eq!(found, Ok((expected, 2, Grade::Visible)), "{role}");
    }
}
