//! What was asked and answered in this run, by anybody: enough to rebuild the context a response was made from.
//!
//! Bounded: the oldest is forgotten first. Conversations are shared by neighbours, so this is, too.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex};

use serde_json::Value;

/// Items, shared between all that hold them.
pub(crate) type Items = Vec<Arc<Value>>;

/// A request's whole history and all else that it said.
#[derive(Clone, Debug)]
pub(crate) struct Body {
    pub(crate) items: Items,
    pub(crate) around: Value,
}

impl Body {
    /// It as a request.
    pub(crate) fn with(&self, items: &Items) -> Value {
        let mut body = self.around.clone();
        body["input"] = items.iter().map(|item| Value::clone(item)).collect();
        body
    }
}

#[derive(Debug, Default)]
pub(crate) struct Lore {
    /// By the digest of a request's settings, which name its turn.
    pub(crate) bodies: Shelf<Arc<Body>>,
    /// By response.
    pub(crate) outputs: Shelf<Items>,
    /// By response: all the items it was made from.
    pub(crate) contexts: Shelf<Items>,
}

/// A bounded map.
#[derive(Debug)]
pub(crate) struct Shelf<T>(Mutex<(HashMap<String, T>, VecDeque<String>)>);

impl<T> Default for Shelf<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T: Clone> Shelf<T> {
    pub(crate) fn put(&self, name: &str, value: T) {
        let mut shelf = self.0.lock().expect("no panic under this lock");
        let (known, order) = &mut *shelf;
        if known.insert(name.to_owned(), value).is_none() {
            order.push_back(name.to_owned());
        }
        if order.len() > MOST
            && let Some(oldest) = order.pop_front()
        {
            known.remove(&oldest);
        }
    }

    pub(crate) fn find(&self, name: &str) -> Option<T> {
        self.0.lock().expect("no panic under this lock").0.get(name).cloned()
    }
}

const MOST: usize = 1500;
