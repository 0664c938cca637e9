//! A strict reader of OpenMetrics 1.0 text, written from the specification: what it does not know it refuses.
//!
//! Shares no code with what wrote the text.

use std::collections::{BTreeMap, BTreeSet};

/// One exposition.
#[derive(Debug)]
pub(crate) struct Scrape {
    pub(crate) families: Vec<Family>,
}

/// The samples of one name.
#[derive(Debug, Default)]
pub(crate) struct Family {
    pub(crate) name: String,
    pub(crate) kind: String,
    pub(crate) help: String,
    pub(crate) samples: Vec<Sample>,
}

#[derive(Debug)]
pub(crate) struct Sample {
    pub(crate) name: String,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) value: f64,
}

impl Scrape {
    /// # Panics
    /// At the first thing that is not OpenMetrics.
    pub(crate) fn read(text: &str) -> Self {
        let body = text.strip_suffix("# EOF\n").expect("it ends with EOF and a line feed");
        assert!(!body.contains("# EOF"), "one EOF");
        let mut families: Vec<Family> = Vec::new();
        for line in body.lines() {
            match line.strip_prefix("# ") {
                Some(descriptor) => describe(&mut families, descriptor),
                None => {
                    let family = families.last_mut().expect("a descriptor comes first");
                    family.samples.push(sample(line));
                }
            }
        }
        let mut names = BTreeSet::new();
        for family in &families {
            assert!(names.insert(&family.name), "{}: its samples are not together", family.name);
            family.check();
        }
        Self { families }
    }

    /// The one sample of this name and these labels.
    pub(crate) fn value(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.find(name, labels).unwrap_or_else(|| panic!("no {name} {labels:?}"))
    }

    pub(crate) fn find(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let wanted: BTreeMap<String, String> =
            labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let samples = self.families.iter().flat_map(|family| &family.samples);
        let mut found = samples.filter(|sample| sample.name == name && sample.labels == wanted);
        let value = found.next()?.value;
        assert!(found.next().is_none(), "{name} {labels:?} is there twice");
        Some(value)
    }

    /// All samples of this name added up.
    pub(crate) fn sum(&self, name: &str) -> f64 {
        let samples = self.families.iter().flat_map(|family| &family.samples);
        samples.filter(|sample| sample.name == name).map(|sample| sample.value).sum()
    }
}

fn describe(families: &mut Vec<Family>, descriptor: &str) {
    let (word, rest) = descriptor.split_once(' ').expect("a word");
    let (name, text) = rest.split_once(' ').expect("a name and a text");
    assert!(is_name(name), "{name}");
    if families.last().is_none_or(|family| family.name != name) {
        families.push(Family { name: name.to_owned(), ..Family::default() });
    }
    let family = families.last_mut().unwrap();
    assert!(family.samples.is_empty(), "{name}: descriptors come before samples");
    match word {
        "HELP" => {
            assert!(family.help.is_empty() && !text.is_empty(), "{name}: one help");
            family.help = text.to_owned();
        }
        "TYPE" => {
            assert!(family.kind.is_empty(), "{name}: one type");
            assert!(["counter", "gauge", "histogram", "info"].contains(&text), "{name}: {text}");
            family.kind = text.to_owned();
        }
        "UNIT" => {
            assert!(["bytes", "seconds"].contains(&text), "{name}: {text} is no base unit");
            assert!(name.ends_with(&format!("_{text}")), "{name} does not end with its unit {text}");
        }
        _ => panic!("{word} is no descriptor"),
    }
}

fn sample(line: &str) -> Sample {
    let end = line.find(['{', ' ']).expect("a name and a value");
    let (name, mut rest) = line.split_at(end);
    assert!(is_name(name), "{name}");
    let mut labels = BTreeMap::new();
    if let Some(inner) = rest.strip_prefix('{') {
        let (text, after) = inner.split_once("} ").expect("a closing brace");
        for pair in text.split("\",").filter(|pair| !pair.is_empty()) {
            let (label, value) = pair.split_once("=\"").expect("label=\"value\"");
            let value = value.strip_suffix('"').unwrap_or(value);
            assert!(is_name(label) && !label.contains(':'), "{label}");
            assert!(!value.contains(['"', '\\', '\n']), "{value}: nothing of ours needs escapes");
            assert!(labels.insert(label.to_owned(), value.to_owned()).is_none(), "{label} twice");
        }
        rest = after;
    } else {
        rest = &rest[1..];
    }
    let value: f64 = rest.parse().unwrap_or_else(|_| panic!("{line}: no number"));
    assert!(value.is_finite(), "{line}");
    Sample { name: name.to_owned(), labels, value }
}

fn is_name(text: &str) -> bool {
    let mut letters = text.bytes();
    letters.next().is_some_and(|first| first.is_ascii_alphabetic() || first == b'_')
        && letters.all(|letter| letter.is_ascii_alphanumeric() || letter == b'_')
}

impl Family {
    fn check(&self) {
        let Self { name, kind, help, samples } = self;
        assert!(!help.is_empty() && !kind.is_empty(), "{name}: a help and a type");
        let suffixes: &[&str] = match kind.as_str() {
            "counter" => &["_total"],
            "info" => &["_info"],
            "histogram" => &["_bucket", "_count", "_sum"],
            _ => &[""],
        };
        let mut seen = BTreeSet::new();
        for sample in samples {
            let suffix = sample.name.strip_prefix(name.as_str()).expect("a sample of this family");
            assert!(suffixes.contains(&suffix), "{}: no sample of a {kind}", sample.name);
            assert!(seen.insert((&sample.name, &sample.labels)), "{} {:?} twice", sample.name, sample.labels);
            assert!(kind == "gauge" || sample.value >= 0.0, "{}: a {kind} below 0", sample.name);
        }
        if kind == "histogram" {
            self.check_buckets();
        }
    }

    /// Buckets rise, by bound and by count, up to the infinite one, which is all.
    fn check_buckets(&self) {
        let mut series: BTreeMap<BTreeMap<String, String>, Vec<(f64, f64)>> = BTreeMap::new();
        for sample in self.samples.iter().filter(|sample| sample.name.ends_with("_bucket")) {
            let mut labels = sample.labels.clone();
            let bound = labels.remove("le").expect("a bound");
            let bound = if bound == "+Inf" { f64::INFINITY } else { bound.parse().expect("a number") };
            series.entry(labels).or_default().push((bound, sample.value));
        }
        for (labels, buckets) in series {
            let rises = buckets.windows(2).all(|pair| pair[0].0 < pair[1].0 && pair[0].1 <= pair[1].1);
            assert!(rises, "{}: {buckets:?}", self.name);
            let (last, all) = buckets.last().copied().expect("a bucket");
            let name = format!("{}_count", self.name);
            let count = self.samples.iter().find(|sample| sample.name == name && sample.labels == labels);
            assert_eq!((last, Some(all)), (f64::INFINITY, count.map(|count| count.value)), "{}", self.name);
        }
    }
}

#[test]
fn what_is_not_open_metrics_is_refused() {
    let whole =
        "# HELP a_bytes x\n# TYPE a_bytes counter\n# UNIT a_bytes bytes\na_bytes_total{p=\"q\"} 1\n# EOF\n";
    assert_eq!(Scrape::read(whole).value("a_bytes_total", &[("p", "q")]), 1.0);
    for broken in [
        &whole[..whole.len() - 6],
        &whole.replace("_total", ""),
        &whole.replace("# UNIT a_bytes bytes", "# UNIT a_bytes seconds"),
        &whole.replace(" 1\n", " one\n"),
        &whole.replace("# EOF", "a_bytes_total{p=\"q\"} 2\n# EOF"),
        &whole.replace("# TYPE a_bytes counter\n", ""),
        &whole.replace("counter", "histogram"),
        &whole.replace(" 1\n", " -1\n"),
    ] {
        let broken = broken.to_owned();
        assert!(std::panic::catch_unwind(|| Scrape::read(&broken)).is_err(), "{broken}");
    }
}
